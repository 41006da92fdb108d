#include "plan/model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "plan/mixture.h"
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
    {"mixtral-8x7b", 46702792704, 0, "released checkpoint"},
    {"mixtral-8x22b", 141e9, 0.5e9, "Mistral AI's documentation"},
    {"grok-1", 314e9, 3.14e9, "xai-org/grok-1, README; within 1 %"},
    {"deepseek-v2", 236e9, 0.5e9, "arXiv 2405.04434"},
    {"deepseek-v3", 671e9, 0.5e9, "arXiv 2412.19437"},
    {"qwen3-30b-a3b", 30.5e9, 0.05e9, "model card"},
    {"qwen3-235b-a22b", 235e9, 0.5e9, "arXiv 2505.09388"},
};

}  // namespace

TEST_CASE("the parameters of every catalogue model are the published ones") {
  for (const Published& row : kPublished) {
    CAPTURE(row.name, row.source);
    const ParameterCount parts = count_parameters(known(row.name));
    // Modules that predict further tokens are published apart from the model.
    const auto counted = static_cast<double>(parts.total() - parts.mtp);
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
    if (model.experts.count == 0) CHECK(model.heads * model.head_dim == model.hidden);
    CHECK(model.experts.active <= std::max(1, model.experts.count));
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

TEST_CASE("a token of a mixture passes the published number of parameters") {
  const auto active = [](const char* name) {
    const ParameterCount parts = active_parameters(known(name));
    return static_cast<double>(parts.total() - parts.mtp);
  };
  // As printed: half a digit of rounding and 1 %.
  CHECK(std::abs(active("mixtral-8x7b") - 12.9e9) <= 0.05e9 + 0.129e9);  // arXiv 2401.04088
  CHECK(std::abs(active("mixtral-8x22b") - 39e9) <= 0.5e9 + 0.39e9);     // Mistral AI
  CHECK(std::abs(active("deepseek-v2") - 21e9) <= 0.5e9 + 0.21e9);       // arXiv 2405.04434
  CHECK(std::abs(active("qwen3-30b-a3b") - 3.3e9) <= 0.05e9 + 0.033e9);  // model card
  CHECK(std::abs(active("qwen3-235b-a22b") - 22e9) <= 0.5e9 + 0.22e9);   // arXiv 2505.09388
  // 36.7 B with one of the two tables of 0.9 B: DeepSeek-V3, README_WEIGHTS.md.
  const auto table = static_cast<double>(active_parameters(known("deepseek-v3")).embedding);
  CHECK(active("deepseek-v3") - table == Approx(36.7e9).epsilon(0.01));
}

TEST_CASE("dense models are active as a whole") {
  for (const char* name : {"gpt3-175b", "llama3-70b"})
    CHECK(active_parameters(known(name)).total() == count_parameters(known(name)).total());
}

TEST_CASE("leading dense layers have no experts") {
  const Model& model = known("deepseek-v3");
  CHECK_FALSE(has_experts(model, 2));
  CHECK(has_experts(model, 3));
  CHECK_FALSE(has_experts(known("llama3-8b"), 40));
  Model dense = model;
  dense.experts.leading_dense = model.layers;
  CHECK(count_parameters(dense).total() == count_parameters(without_experts(model)).total());
}

TEST_CASE("training FLOPs of DeepSeek's mixtures are those of their hardware paper") {
  // Zhao et al. 2025 (arXiv 2505.09343), table 2: FLOPs a token at 4,096 tokens, causal.
  const auto of = [](const char* name) {
    Model model = known(name);
    model.mtp_layers = 0;  // left out of the table
    return training_flops(model, 1, 4096, AttentionCount::CausalHalf);
  };
  CHECK(of("deepseek-v2") == Approx(155e9).epsilon(0.01));
  CHECK(of("deepseek-v3") == Approx(250e9).epsilon(0.01));
}

TEST_CASE("DeepSeek-V3's module for a second token has its published parameters and FLOPs") {
  // README_WEIGHTS.md of deepseek-ai/DeepSeek-V3: 11.5 B of its own; with the embedding and the
  // head that it shares, the 14 B of the published weights beside the model's 671 B.
  const Model& model = known("deepseek-v3");
  CHECK(model.mtp_layers == 1);
  const ParameterCount parts = count_parameters(model);
  const double own = static_cast<double>(parts.mtp);
  CHECK(own == Approx(11.5e9).epsilon(0.01));
  CHECK(own + static_cast<double>(parts.embedding + parts.head) == Approx(13.5e9).epsilon(0.01));
  const std::int64_t h = model.hidden;
  CHECK(parts.mtp == layer_parameters(model) + 2 * h * h + 3 * h);
  // One layer of experts, a product of 2h to h, and the head, three times forward.
  Model without = model, longer = model;
  without.mtp_layers = 0;
  longer.layers += 1;
  longer.mtp_layers = 0;
  const auto flops = [](const Model& of) {
    return training_flops(of, 1, 4096, AttentionCount::CausalHalf);
  };
  const double layer = flops(longer) - flops(without);
  const double width = model.hidden;
  const double product = 3 * 2.0 * 2 * width * width, head = 3 * 2.0 * width * model.vocab;
  CHECK(flops(model) - flops(without) == Approx(layer + product + head).epsilon(1e-12));
}

TEST_CASE("the vocabulary is padded so that tensor ranks share it evenly") {
  const Model& model = known("gpt3-175b");
  CHECK(padded_vocab(model, 1) == 50304);
  CHECK(padded_vocab(model, 8) == 51200);
  CHECK(padded_vocab(known("megatron-1t"), 8) == 51200);
}
