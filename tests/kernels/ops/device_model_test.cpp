// A whole model on the device: the operators as they follow each other, each reading what another
// wrote.
#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"
#include "tests/kernels/ops/small_model.h"

using namespace rehearse;

namespace {

/// Heads of 64, which bf16 takes to the tensor cores.
Model gpt_style() {
  return {.name = "gpt",
          .layers = 2,
          .hidden = 128,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 64,
          .ffn = 192,
          .vocab = 50,
          .max_seq_len = 32};
}
Model llama_style() {
  Model model = gpt_style();
  model.name = "llama";
  model.heads = 4;
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.tied_embeddings = false;
  model.linear_bias = false;
  return model;
}

/// Tensors made meanwhile lie in memory that the device reaches.
class SharedTensors {
 public:
  SharedTensors() : before_(std::pmr::set_default_resource(shared_memory())) {}
  ~SharedTensors() { std::pmr::set_default_resource(before_); }
  SharedTensors(const SharedTensors&) = delete;
  SharedTensors& operator=(const SharedTensors&) = delete;

 private:
  std::pmr::memory_resource* before_;
};

}  // namespace

TEST_CASE("device: the loss and gradients of a whole model agree with the CPU's") {
  ComputeDevice* device = device_under_test();
  if (device == nullptr) {
    WARN("SKIPPED: " + why_no_device());
    return;
  }
  const SharedTensors shared;
  const Model kind = GENERATE(gpt_style(), llama_style());
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  CAPTURE(kind.name, dtype_name(dtype));
  Random random(200), same(200);
  SmallModel reference(kind, dtype, random), model(kind, dtype, same, *device);
  constexpr std::int64_t kLength = 20;
  const HostTensor tokens = random_ints(random, {3 * kLength}, 50),
                   targets = random_ints(random, {3 * kLength}, 50);
  const double expected = reference.loss(tokens, targets, kLength);
  CHECK(model.loss(tokens, targets, kLength) == Approx(expected).epsilon(error_bound(dtype)));
  const SmallModel::Tensors wanted = reference.gradients(), gradients = model.gradients();
  CHECK(gradients.size() == wanted.size());
  for (const auto& [name, gradient] : wanted) {
    if (name.ends_with("qkv.bias")) continue;  // a key's bias has no effect: its gradient is 0
    CAPTURE(name);
    // Roundings of every activation add up, here and there in other places: many times one
    // operator's bound.
    CHECK(relative_error(gradients.at(name), gradient) < (dtype == DType::Bf16 ? 0.06 : 1e-4));
  }
}
