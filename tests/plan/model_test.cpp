#include "plan/model.h"

#include <cmath>
#include <set>

#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

const Model& known(const char* name) {
  const Model* model = find_model(name);
  REQUIRE(model != nullptr);
  return *model;
}

/// A published parameter count: exact where the checkpoint's is known, else as printed, with the
/// size of half the last printed digit.
struct Published {
  const char* name;
  double parameters;
  double half_digit;  ///< 0: the exact count of a released checkpoint
  const char* source;
};

const Published kPublished[] = {
    {"gpt2", 124439808, 0, "released checkpoint"},
    {"gpt2-medium", 354823168, 0, "released checkpoint"},
    {"gpt2-large", 774030080, 0, "released checkpoint"},
    {"gpt2-xl", 1557611200, 0, "released checkpoint"},
    {"gpt3-125m", 125e6, 0.5e6, "arXiv 2005.14165 table 2.1"},
    // Printed to one and a half digits: GPT-2 medium of the same shape has 354.8 M.
    {"gpt3-350m", 350e6, 7e6, "arXiv 2005.14165 table 2.1"},
    {"gpt3-760m", 760e6, 5e6, "arXiv 2005.14165 table 2.1"},
    {"gpt3-1.3b", 1.3e9, 0.05e9, "arXiv 2005.14165 table 2.1"},
    {"gpt3-2.7b", 2.7e9, 0.05e9, "arXiv 2005.14165 table 2.1"},
    {"gpt3-6.7b", 6.7e9, 0.05e9, "arXiv 2005.14165 table 2.1"},
    {"gpt3-13b", 13.0e9, 0.5e9, "arXiv 2005.14165 table 2.1"},
    {"gpt3-175b", 175.0e9, 0.5e9, "arXiv 2005.14165 table 2.1"},
    {"megatron-1.7b", 1.7e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-3.6b", 3.6e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-7.5b", 7.5e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-18b", 18.4e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-22b", 22e9, 0.5e9, "arXiv 2205.05198 table 3"},
    {"megatron-39b", 39.1e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-76b", 76.1e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-145b", 145.6e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-310b", 310.1e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-530b", 529.6e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"megatron-1t", 1008.0e9, 0.05e9, "arXiv 2104.04473 table 1"},
    {"llama2-7b", 6738415616, 0, "released checkpoint"},
    {"llama2-13b", 13015864320, 0, "released checkpoint"},
    {"llama2-70b", 68976648192, 0, "released checkpoint"},
    {"llama3-8b", 8030261248, 0, "released checkpoint"},
    {"llama3-70b", 70553706496, 0, "released checkpoint"},
    {"llama3-405b", 405853388800, 0, "released checkpoint"},
    {"mistral-7b", 7248023552, 0, "released checkpoint, version 0.3"},
    {"qwen2.5-7b", 7615616512, 0, "released checkpoint"},
    {"qwen2.5-72b", 72706203648, 0, "released checkpoint"},
    {"nemotron4-15b", 15.7e9, 0.1e9, "arXiv 2402.16819: 3.2 B embedding + 12.5 B others"},
    {"nemotron4-340b", 341.0e9, 0.1e9, "arXiv 2406.11704: 9.4 B embedding + 331.6 B others"},
};

}  // namespace

TEST_CASE("the parameters of every catalogue model are the published ones") {
  for (const Published& row : kPublished) {
    CAPTURE(row.name, row.source);
    const auto counted = static_cast<double>(count_parameters(known(row.name)).total());
    CAPTURE(counted);
    if (row.half_digit == 0) {
      CHECK(counted == row.parameters);
    } else {
      CHECK(std::abs(counted - row.parameters) <= row.half_digit);
    }
  }
  std::set<std::string> tabled, listed;
  for (const Published& row : kPublished) tabled.insert(row.name);
  for (const Model& model : model_catalogue()) listed.insert(model.name);
  CHECK(tabled == listed);
  CHECK(listed.size() == model_catalogue().size());
}

TEST_CASE("catalogue models keep the invariants of a model") {
  for (const Model& model : model_catalogue()) {
    CAPTURE(model.name);
    CHECK(model.heads % model.kv_heads == 0);
    CHECK(model.heads * model.head_dim == model.hidden);
  }
  CHECK(find_model("gpt-17") == nullptr);
}

TEST_CASE("GPT parameters follow 12lh²(1 + 13/12h + (V+s)/12lh)") {
  // Narayanan et al. 2021, equation 2, which leaves out the final norm's 2h.
  for (const char* name : {"megatron-1.7b", "megatron-39b", "megatron-1t"}) {
    const Model& model = known(name);
    const double h = model.hidden, l = model.layers;
    const double formula =
        12 * l * h * h * (1 + 13 / (12 * h) + (model.vocab + model.max_seq_len) / (12 * l * h));
    CHECK(static_cast<double>(count_parameters(model).total()) ==
          Approx(formula + 2 * h).epsilon(1e-12));
  }
}

TEST_CASE("training FLOPs follow the published formula with and without recomputation") {
  for (const char* name : {"megatron-1.7b", "megatron-145b", "megatron-1t"}) {
    const Model& model = known(name);
    const double h = model.hidden, l = model.layers, s = 2048, v = model.vocab, batch = 512;
    const double plain = 72 * batch * s * l * h * h * (1 + s / (6 * h) + v / (12 * l * h));
    const double full = 96 * batch * s * l * h * h * (1 + s / (6 * h) + v / (16 * l * h));
    const double counted = training_flops(model, batch * s, 2048, AttentionCount::FullSquare);
    CHECK(counted == Approx(plain).epsilon(1e-12));
    CHECK(counted + recomputation_flops(model, batch * s, 2048, AttentionCount::FullSquare) ==
          Approx(full).epsilon(1e-12));
  }
}

TEST_CASE("causal counting halves the attention term alone") {
  const Model& model = known("llama3-8b");
  const double full = training_flops(model, 1, 8192, AttentionCount::FullSquare);
  const double half = training_flops(model, 1, 8192, AttentionCount::CausalHalf);
  CHECK(full - half == Approx(3.0 * 32 * 2 * 8192 * 4096).epsilon(1e-12));
}

TEST_CASE("training FLOPs of Llama 3 405B are those of its paper") {
  // arXiv 2407.21783 §3.2.1: 3.8e25 FLOPs on 15.6 T tokens.
  const double flops =
      training_flops(known("llama3-405b"), 15.6e12, 8192, AttentionCount::CausalHalf);
  CHECK(flops == Approx(3.8e25).epsilon(0.05));
}

TEST_CASE("the vocabulary is padded so that tensor ranks share it evenly") {
  const Model& model = known("gpt3-175b");
  CHECK(padded_vocab(model, 1) == 50304);
  CHECK(padded_vocab(model, 8) == 51200);
  CHECK(padded_vocab(known("megatron-1t"), 8) == 51200);
}
