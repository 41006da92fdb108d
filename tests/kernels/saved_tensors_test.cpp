#include "kernels/layer.h"
#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

// Korthikanti et al. 2022 (arXiv 2205.05198), table 2, for every width and tensor group tried.

namespace {

LayerShape shape_of(const char* model, int tp, bool sequence_parallel) {
  LayerShape shape;
  shape.model = *find_model(model);
  shape.tp = tp;
  shape.micro_batch = 3;
  shape.seq_len = 2048;
  shape.padded_vocab = padded_vocab(shape.model, tp);
  shape.sequence_parallel = sequence_parallel;
  shape.attention = AttentionKernel::Plain;
  shape.precision = Precision::Fp16;
  shape.dropout = 0.1;
  return shape;
}

double sum(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

double saved(const LayerShape& shape) { return sum(layer_saved_tensors(shape)); }

}  // namespace

TEST_CASE("saved tensors sum to the published rows") {
  const char* name = GENERATE("gpt3-175b", "megatron-22b", "megatron-1t", "gpt2");
  LayerShape shape = shape_of(name, 1, false);
  const double s = 2048, b = 3, h = shape.model.hidden, a = shape.model.heads;
  const double sbh = s * b * h;
  CAPTURE(name);
  const auto agrees = [](double bytes, double formula) {
    CHECK(bytes == Approx(formula).epsilon(1e-12));
  };
  agrees(saved(shape), sbh * (34 + 5 * a * s / h));
  shape.recompute = Recompute::Selective;
  agrees(saved(shape), sbh * 34);
  shape.recompute = Recompute::Full;
  agrees(saved(shape), sbh * 2);
  for (const int t : {2, 4}) {
    CAPTURE(t);
    shape = shape_of(name, t, false);
    agrees(saved(shape), sbh * (10 + 24.0 / t + 5 * a * s / (h * t)));
    shape.recompute = Recompute::Selective;
    agrees(saved(shape), sbh * (10 + 24.0 / t));
    shape.recompute = Recompute::Full;
    agrees(saved(shape), sbh * 2);
    shape = shape_of(name, t, true);
    agrees(saved(shape), sbh / t * (34 + 5 * a * s / h));
    shape.recompute = Recompute::Selective;
    agrees(saved(shape), sbh / t * 34);
    shape.recompute = Recompute::Full;
    agrees(saved(shape), sbh / t * 2);
  }
}

TEST_CASE("recomputation by operator keeps attention and the first of each two products") {
  LayerShape shape = shape_of("llama3-70b", 1, false);
  shape.attention = AttentionKernel::Flash;
  shape.recompute = Recompute::Operators;
  const Model& m = shape.model;
  const double tokens = 3 * 2048.0, key = m.kv_heads * m.head_dim;
  // Layer input, q, v, attention's result with a statistic a head, gate, down.
  const double widths = 4.0 * m.hidden + key + m.ffn;
  CHECK(saved(shape) == Approx(tokens * (2 * widths + 4.0 * m.heads)).epsilon(1e-12));
  shape.recompute = Recompute::None;
  CHECK(saved(shape) > tokens * 2 * widths);
}

TEST_CASE("recomputation by operator keeps no tensor twice") {
  LayerShape shape;
  shape.model = *find_model("llama3-8b");
  shape.recompute = Recompute::Operators;
  shape.attention = AttentionKernel::Flash;
  for (const Precision precision : {Precision::Bf16, Precision::Fp8}) {
    shape.precision = precision;
    int results = 0;
    for (const SavedTensor& tensor : layer_saved_tensors(shape))
      results += tensor.name == std::string("attention result");
    CHECK(results == 1);
  }
}

TEST_CASE("flash attention keeps a row statistic where plain keeps the square") {
  LayerShape shape = shape_of("megatron-22b", 8, true);
  shape.recompute = Recompute::Selective;
  const double selective = saved(shape);
  const double statistic = 4.0 * 3 * 2048 * 64 / 8;
  for (const Recompute recompute : {Recompute::None, Recompute::Selective}) {
    shape.attention = AttentionKernel::Flash;
    shape.recompute = recompute;
    CHECK(saved(shape) == Approx(selective + statistic).epsilon(1e-12));
  }
}

TEST_CASE("SwiGLU and grouped heads keep 8h + 2d(2a+2g) + 4a + 6f bytes a token") {
  for (const char* name : {"llama2-7b", "llama3-8b", "llama3-405b", "mistral-7b"}) {
    CAPTURE(name);
    LayerShape shape = shape_of(name, 1, false);
    shape.attention = AttentionKernel::Flash;
    shape.dropout = 0;
    const double h = shape.model.hidden, a = shape.model.heads, g = shape.model.kv_heads,
                 d = shape.model.head_dim, f = shape.model.ffn;
    const double token = 8 * h + 2 * d * (2 * a + 2 * g) + 4 * a + 6 * f;
    CHECK(saved(shape) == Approx(3 * 2048 * token).epsilon(1e-12));
    LayerShape split = shape_of(name, 8, true);
    split.attention = AttentionKernel::Flash;
    split.dropout = 0;
    CHECK(saved(split) == Approx(3 * 2048 * token / 8).epsilon(1e-12));
  }
}

TEST_CASE("without dropout neither masks nor a second square are kept") {
  LayerShape shape = shape_of("megatron-22b", 1, false);
  shape.dropout = 0;
  const double sbh = 2048.0 * 3 * 6144;
  CHECK(saved(shape) == Approx(sbh * (32 + 2 * 64 * 2048.0 / 6144)).epsilon(1e-12));
}

TEST_CASE("head and embedding keep what the paper adds to the first and last stage") {
  // §4.3: embedding dropout sbh; output 4sbh(1 + v/h); and 8 bytes for each token's id.
  const LayerShape shape = shape_of("megatron-22b", 8, true);
  const double sbh = 2048.0 * 3 * 6144;
  CHECK(sum(embedding_saved_tensors(shape)) == Approx(sbh / 8 + 8.0 * 3 * 2048));
  CHECK(sum(head_saved_tensors(shape)) ==
        Approx(4 * sbh / 8 * (1 + shape.padded_vocab / 6144.0)).epsilon(1e-12));
}

TEST_CASE("fp8 keeps the inputs of linear layers in one byte") {
  LayerShape shape = shape_of("llama3-8b", 1, false);
  shape.attention = AttentionKernel::Flash;
  shape.dropout = 0;
  const double bf16 = saved(shape);
  shape.precision = Precision::Fp8;
  // qkv and ffn_up inputs (h), ffn_down input (f) halve; the attention result is kept in bf16
  // for attention's own backward and in fp8 for the projection.
  const double tokens = 3.0 * 2048;
  CHECK(saved(shape) == Approx(bf16 - tokens * (4096 + 4096 + 14336 - 4096)).epsilon(1e-12));
}

TEST_CASE("the backward's workspace holds what recomputation brings back") {
  LayerShape shape = shape_of("megatron-22b", 8, true);
  const double none = layer_backward_workspace_bytes(shape);
  const double kept = saved(shape);
  shape.recompute = Recompute::Full;
  CHECK(layer_backward_workspace_bytes(shape) ==
        Approx(none + kept - boundary_bytes(shape)).epsilon(1e-12));
  shape.recompute = Recompute::Selective;
  CHECK(layer_backward_workspace_bytes(shape) + saved(shape) == Approx(none + kept).epsilon(1e-12));
}

TEST_CASE("tensor ranks hold their share of the parameters and all of the norms") {
  const LayerShape whole = shape_of("gpt3-175b", 1, false);
  CHECK(layer_parameters_per_rank(whole) == static_cast<double>(layer_parameters(whole.model)));
  const LayerShape split = shape_of("gpt3-175b", 8, false);
  const double h = 12288;
  // Replicated: two norms of 2h, and the biases of the two row-parallel layers.
  const double replicated = 4 * h + 2 * h;
  CHECK(layer_parameters_per_rank(split) ==
        Approx((layer_parameters_per_rank(whole) - replicated) / 8 + replicated).epsilon(1e-12));
  CHECK(embedding_parameters_per_rank(split) == 51200 / 8 * h + 2048 * h);
  CHECK(head_parameters_per_rank(split, false) == 2 * h);
  CHECK(head_parameters_per_rank(split, true) == 2 * h + 51200 / 8 * h);
}
