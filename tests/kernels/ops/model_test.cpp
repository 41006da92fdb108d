#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/catch.h"
#include "tests/kernels/ops/small_model.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

Model gpt_style() {
  return {.name = "gpt",
          .layers = 2,
          .hidden = 12,
          .heads = 3,
          .kv_heads = 3,
          .head_dim = 4,
          .ffn = 20,
          .vocab = 17,
          .max_seq_len = 8};
}
Model llama_style() {
  return {.name = "llama",
          .layers = 2,
          .hidden = 12,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .ffn = 10,
          .vocab = 17,
          .max_seq_len = 8,
          .activation = Activation::Swiglu,
          .norm = Norm::RmsNorm,
          .positions = Positions::Rotary,
          .tied_embeddings = false,
          .linear_bias = false};
}

struct Batch {
  HostTensor tokens, targets;
};
Batch batch_of(Random& random) {
  return {random_ints(random, {14}, 17), random_ints(random, {14}, 17)};
}

}  // namespace

TEST_CASE("every gradient of a whole model equals finite differences") {
  const Model kind = GENERATE(gpt_style(), llama_style());
  CAPTURE(kind.name);
  Random random(150);
  SmallModel model(kind, DType::F64, random);
  const Batch batch = batch_of(random);
  const auto loss = [&] { return model.loss(batch.tokens, batch.targets, 7); };
  loss();
  const SmallModel::Tensors gradients = model.gradients();
  CHECK(gradients.size() == model.weights().size());
  for (auto& [name, weight] : model.weights()) {
    CAPTURE(name);
    CHECK(gradient_error(weight, gradients.at(name), loss, 12) < 1e-6);
  }
}

TEST_CASE("a whole model in fp32 and bf16 agrees with itself in fp64") {
  const Model kind = GENERATE(gpt_style(), llama_style());
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  CAPTURE(kind.name, dtype_name(dtype));
  Random random(151);
  SmallModel narrow(kind, dtype, random), wide(kind, DType::F64, random);
  for (auto& [name, weight] : wide.weights())
    for (std::int64_t i = 0; i < weight.elements(); ++i)
      weight.set(i, narrow.weights().at(name).at(i));
  const Batch batch = batch_of(random);
  const double expected = wide.loss(batch.tokens, batch.targets, 7);
  CHECK(narrow.loss(batch.tokens, batch.targets, 7) ==
        Approx(expected).epsilon(error_bound(dtype)));
  const auto reference = wide.gradients(), gradients = narrow.gradients();
  for (const auto& [name, gradient] : reference) {
    if (name.ends_with("qkv.bias")) continue;  // a key's bias has no effect: its gradient is 0
    CAPTURE(name);
    // Roundings of every activation add up: several times one operator's bound.
    CHECK(relative_error(gradients.at(name), gradient) < (dtype == DType::Bf16 ? 0.06 : 3e-5));
  }
}

namespace {

void write_tensors(const std::filesystem::path& path, const SmallModel::Tensors& tensors) {
  std::ofstream file(path);
  file.precision(17);
  for (const auto& [name, tensor] : tensors) {
    file << name;
    for (int i = 0; i < tensor.shape().rank; ++i) file << (i == 0 ? " " : "x") << tensor.size(i);
    for (std::int64_t i = 0; i < tensor.elements(); ++i) file << ' ' << tensor.at(i);
    file << '\n';
  }
}

SmallModel::Tensors read_tensors(const std::filesystem::path& path,
                                 const SmallModel::Tensors& like) {
  SmallModel::Tensors tensors;
  std::ifstream file(path);
  std::string name, sizes;
  while (file >> name >> sizes) {
    HostTensor tensor(DType::F64, name == "loss" ? TensorShape{1} : like.at(name).shape());
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      double value = 0;
      file >> value;
      tensor.set(i, value);
    }
    tensors[name] = tensor;
  }
  return tensors;
}

/// The first Python in the path, or else the system's own, which Debian's package serves; empty:
/// neither has PyTorch.
std::string python_with_torch() {
  for (const char* python : {"python3", "/usr/bin/python3"})
    if (std::system((std::string(python) + " -c 'import torch' >/dev/null 2>&1").c_str()) == 0)
      return python;
  return "";
}

}  // namespace

TEST_CASE("the loss and gradients of a whole model equal PyTorch's") {
  const std::string python = python_with_torch();
  if (python.empty()) {
    WARN("SKIPPED: PyTorch is not installed (Debian: python3-torch)");
    return;
  }
  const Model kind = GENERATE(gpt_style(), llama_style());
  CAPTURE(kind.name);
  Random random(152);
  SmallModel model(kind, DType::F64, random);
  const Batch batch = batch_of(random);
  const double loss = model.loss(batch.tokens, batch.targets, 7);
  const SmallModel::Tensors gradients = model.gradients();
  const auto folder = std::filesystem::path(binary_directory()) / "pytorch_test";
  std::filesystem::create_directories(folder);
  const auto input = folder / (kind.name + "-in.txt"), output = folder / (kind.name + "-out.txt");
  SmallModel::Tensors sent = model.weights();
  sent["tokens"] = batch.tokens;
  sent["targets"] = batch.targets;
  write_tensors(input, sent);
  const std::string command = python + " " + source_directory() +
                              "/tests/kernels/ops/pytorch_model.py " + kind.name + " " +
                              std::to_string(kind.heads) + " " + std::to_string(kind.kv_heads) +
                              " 7 " + input.string() + " " + output.string();
  REQUIRE(std::system(command.c_str()) == 0);
  const SmallModel::Tensors theirs = read_tensors(output, gradients);
  CHECK(theirs.at("loss").at(0) == Approx(loss).epsilon(1e-9));
  CHECK(theirs.size() == gradients.size() + 1);
  for (const auto& [name, gradient] : gradients) {
    CAPTURE(name);
    CHECK(relative_error(gradient, theirs.at(name)) < 1e-9);
  }
}
