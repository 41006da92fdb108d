#include "kernels/layer.h"
#include "kernels/layer_parts.h"
#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

// What named recomputation and fp8 recipes keep and repeat, in closed form. The unit sbh is one
// byte for every token and hidden element.

namespace {

LayerShape gpt(int tp, bool sequence_parallel) {
  LayerShape shape;
  shape.model = *find_model("megatron-22b");
  shape.tp = tp;
  shape.micro_batch = 2;
  shape.seq_len = 2048;
  shape.padded_vocab = padded_vocab(shape.model, tp);
  shape.sequence_parallel = sequence_parallel;
  return shape;
}

double sbh(const LayerShape& shape) {
  return static_cast<double>(shape.tokens()) * shape.model.hidden;
}

double saved(const LayerShape& shape) {
  double bytes = 0;
  for (const SavedTensor& tensor : layer_saved_tensors(shape)) bytes += tensor.bytes;
  return bytes;
}

struct Repeated {
  double product_flops = 0;
  int products = 0, norms = 0, activations = 0, attentions = 0, collectives = 0, casts = 0;
};

Repeated repeated(const LayerShape& shape) {
  Repeated sum;
  for (const LayerItem& item : layer_backward(shape)) {
    if (!item.op.recomputed) continue;
    if (item.is_collective) {
      ++sum.collectives;
    } else if (item.op.family == OperatorFamily::Gemm) {
      ++sum.products;
      sum.product_flops += item.op.flops;
    } else {
      sum.norms += item.op.name == OperatorName::Norm;
      sum.activations += item.op.name == OperatorName::FfnActivation;
      sum.attentions += item.op.name == OperatorName::Attention;
      sum.casts += item.op.name == OperatorName::Cast;
    }
  }
  return sum;
}

double cast_bytes(const LayerShape& shape) {
  double bytes = 0;
  for (const auto& items : {layer_forward(shape), layer_backward(shape)})
    for (const LayerItem& item : items)
      if (!item.is_collective && item.op.name == OperatorName::Cast) bytes += item.op.bytes;
  return bytes;
}

}  // namespace

TEST_CASE("named recomputation drops exactly the tensors it makes again") {
  for (const int t : {1, 8}) {
    CAPTURE(t);
    LayerShape shape = gpt(t, t > 1);
    const double all = saved(shape), unit = sbh(shape) / t;
    const double statistic = 4.0 * static_cast<double>(shape.tokens()) * shape.model.heads / t;
    shape.recompute = Recompute::Selective;
    CHECK(saved(shape) == Approx(all).epsilon(1e-12));  // flash attention: nothing by itself
    shape.repeated = {.norm = true};
    CHECK(all - saved(shape) == Approx(4 * unit).epsilon(1e-9));
    shape.repeated = {.ffn_activation = true};
    CHECK(all - saved(shape) == Approx(8 * unit).epsilon(1e-9));
    shape.repeated = {.ffn = true};
    CHECK(all - saved(shape) == Approx(16 * unit).epsilon(1e-9));
    shape.repeated = {.ffn = true, .ffn_activation = true};
    CHECK(all - saved(shape) == Approx(16 * unit).epsilon(1e-9));
    shape.repeated = {.attention = true};
    CHECK(all - saved(shape) == Approx(statistic).epsilon(1e-9));
    shape.repeated = {.attention = true, .norm = true, .ffn = true};
    CHECK(all - saved(shape) == Approx(20 * unit + statistic).epsilon(1e-9));
  }
}

TEST_CASE("named recomputation repeats exactly the operators it names") {
  LayerShape shape = gpt(8, true);
  shape.recompute = Recompute::Selective;
  shape.repeated = {.ffn = true};
  const double h = shape.model.hidden, tokens = static_cast<double>(shape.tokens());
  Repeated sum = repeated(shape);
  CHECK(sum.products == 2);
  CHECK(sum.product_flops == Approx(16 * tokens * h * h / 8).epsilon(1e-12));
  CHECK(sum.activations == 1);
  CHECK(sum.collectives == 2);  // its input is gathered, its output reduced again
  CHECK(sum.norms == 0);
  shape.repeated = {.norm = true};
  sum = repeated(shape);
  CHECK(sum.norms == 2);
  CHECK(sum.products + sum.activations + sum.attentions + sum.collectives == 0);
  shape.repeated = {.norm = true, .ffn = true};
  CHECK(repeated(shape).norms == 2);
  shape.repeated = {.ffn_activation = true};
  sum = repeated(shape);
  CHECK(sum.activations == 1);
  CHECK(sum.products + sum.norms + sum.collectives == 0);
  shape.repeated = {.attention = true};
  CHECK(repeated(shape).attentions == 1);
}

TEST_CASE("layers behind those that recompute, and the ends of an fp8 model, are as without") {
  LayerShape shape = gpt(1, false);
  shape.recompute = Recompute::Full;
  shape.precision = Precision::Fp8;
  shape.recompute_layers = 2;
  shape.fp8.bf16_ends = 1;
  const int last = shape.model.layers - 1;
  CHECK(shape_of_layer(shape, 5, 1).recompute == Recompute::Full);
  CHECK(shape_of_layer(shape, 6, 2).recompute == Recompute::None);
  CHECK(shape_of_layer(shape, 0, 0).precision == Precision::Bf16);
  CHECK(shape_of_layer(shape, 1, 1).precision == Precision::Fp8);
  CHECK(shape_of_layer(shape, last, 1).precision == Precision::Bf16);
  CHECK(fp8_parameters_per_rank(shape_of_layer(shape, last, 1)) == 0);
}

TEST_CASE("a cast to fp8 moves what its scaling needs") {
  CHECK(fp8_cast_bytes(Fp8Scaling::Delayed, 1000, true) == Approx(4000));
  CHECK(fp8_cast_bytes(Fp8Scaling::Delayed, 1000, false) == Approx(3000));
  CHECK(fp8_cast_bytes(Fp8Scaling::Current, 1000, true) == Approx(6000));
  CHECK(fp8_cast_bytes(Fp8Scaling::Block, 1280, true) == Approx(4 * 1280 + 2 * 10 * 4));
  CHECK(fp8_cast_bytes(Fp8Scaling::Mx, 3200, true) == Approx(4 * 3200 + 2 * 100));
  LayerShape shape = gpt(1, false);
  shape.precision = Precision::Fp8;
  const double delayed = cast_bytes(shape);
  shape.fp8.scaling = Fp8Scaling::Current;
  CHECK(cast_bytes(shape) == Approx(1.5 * delayed).epsilon(1e-12));
}

TEST_CASE("an fp8 recipe decides which products are fp8 and what they keep") {
  LayerShape shape = gpt(1, false);
  shape.precision = Precision::Fp8;
  const double h = shape.model.hidden;
  const double fp8_saved = saved(shape), all_weights = fp8_parameters_per_rank(shape);
  CHECK(all_weights == Approx(12 * h * h).epsilon(1e-12));
  shape.fp8.attention_output = false;
  CHECK(fp8_parameters_per_rank(shape) == Approx(11 * h * h).epsilon(1e-12));
  // Attention's result is kept once, in 16 bits, instead of in both.
  CHECK(fp8_saved - saved(shape) == Approx(sbh(shape)).epsilon(1e-12));
  shape.fp8.attention_output = true;
  shape.fp8.weight_gradient = false;
  for (const LayerItem& item : layer_backward(shape))
    if (item.op.family == OperatorFamily::Gemm)
      CHECK(item.op.precision ==
            (item.op.pass == Pass::WeightGradient ? Precision::Bf16 : Precision::Fp8));
  // Inputs of products in 16 bits: h, h and 4h more, and attention's result once.
  CHECK(saved(shape) - fp8_saved == Approx((1 + 1 + 4 + 2 - 3) * sbh(shape)).epsilon(1e-12));
}

TEST_CASE("fp8 gathers move one byte an element before products") {
  LayerShape shape = gpt(8, true);
  shape.precision = Precision::Fp8;
  const auto gathered = [&] {
    double bytes = 0;
    for (const LayerItem& item : layer_forward(shape))
      if (item.is_collective && item.collective == CollectiveKind::AllGather) bytes += item.bytes;
    return bytes;
  };
  CHECK(gathered() == Approx(2 * 2 * sbh(shape)));
  shape.fp8.gathers = true;
  CHECK(gathered() == Approx(2 * sbh(shape)));
}
