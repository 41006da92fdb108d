#include "kernels/ops/call_checker.h"

namespace rehearse {
namespace {

constexpr auto kFloats = {DType::F32, DType::Bf16, DType::F64};
constexpr auto kFp32 = {DType::F32};
constexpr auto kFp64 = {DType::F64};
constexpr auto kInt32 = {DType::I32};
constexpr auto kByte = {DType::U8};
constexpr auto kCastable = {DType::F32, DType::Bf16, DType::F64, DType::F8E4m3};

/// Parameters may be kept in the type of the activations or in fp32.
void parameter(const CallChecker& check, const char* name, const ConstTensorView& tensor,
               std::int64_t size, DType activation) {
  if (activation == DType::F64)
    check.tensor(name, tensor, {size}, {DType::F64});
  else
    check.tensor(name, tensor, {size}, {activation, DType::F32});
}

void norm_kind(const CallChecker& check, bool is_layer_norm, const ConstTensorView& tensor,
               const char* name) {
  if (!is_layer_norm)
    check.require(!tensor.given(), [&] { return std::string("RMSNorm has no \"") + name + "\""; });
}

}  // namespace

void check_call(const NormForward& call) {
  const CallChecker check("norm_forward");
  check.rank("x", call.x, 2);
  const std::int64_t rows = call.x.size(0), h = call.x.size(1);
  const bool layer_norm = call.kind == Norm::LayerNorm;
  const DType dtype = call.x.dtype;
  check.tensor("x", call.x, {rows, h}, kFloats);
  check.tensor("out", call.out, {rows, h}, {dtype});
  check.require(call.residual.given() == call.sum.given(),
                "\"residual\" and \"sum\" are given together");
  if (call.residual.given()) {
    check.tensor("residual", call.residual, {rows, h}, {dtype});
    check.tensor("sum", call.sum, {rows, h}, {dtype});
  }
  parameter(check, "weight", call.weight, h, dtype);
  norm_kind(check, layer_norm, call.bias, "bias");
  norm_kind(check, layer_norm, call.mean, "mean");
  if (layer_norm) {
    parameter(check, "bias", call.bias, h, dtype);
    check.require(call.bias.dtype == call.weight.dtype, "\"weight\" and \"bias\" differ in type");
    check.tensor("mean", call.mean, {rows}, statistics_dtype(dtype));
  }
  check.tensor("inverse_deviation", call.inverse_deviation, {rows}, statistics_dtype(dtype));
}

void check_call(const NormBackward& call) {
  const CallChecker check("norm_backward");
  check.rank("x", call.x, 2);
  const std::int64_t rows = call.x.size(0), h = call.x.size(1);
  const bool layer_norm = call.kind == Norm::LayerNorm;
  const DType dtype = call.x.dtype;
  check.tensor("x", call.x, {rows, h}, kFloats);
  check.tensor("d_out", call.d_out, {rows, h}, {dtype});
  check.tensor("d_x", call.d_x, {rows, h}, {dtype});
  if (call.d_residual.given()) check.tensor("d_residual", call.d_residual, {rows, h}, {dtype});
  parameter(check, "weight", call.weight, h, dtype);
  check.tensor("d_weight", call.d_weight, {h}, statistics_dtype(dtype));
  check.tensor("inverse_deviation", call.inverse_deviation, {rows}, statistics_dtype(dtype));
  norm_kind(check, layer_norm, call.mean, "mean");
  norm_kind(check, layer_norm, call.d_bias, "d_bias");
  if (layer_norm) {
    check.tensor("mean", call.mean, {rows}, statistics_dtype(dtype));
    check.tensor("d_bias", call.d_bias, {h}, statistics_dtype(dtype));
  }
}

void check_call(const ActivationForward& call) {
  const CallChecker check("activation_forward");
  check.rank("out", call.out, 2);
  const std::int64_t rows = call.out.size(0), f = call.out.size(1);
  check.tensor("out", call.out, {rows, f}, kFloats);
  check.tensor("x", call.x, {rows, call.kind == Activation::Swiglu ? 2 * f : f}, {call.out.dtype});
}

void check_call(const ActivationBackward& call) {
  const CallChecker check("activation_backward");
  check.rank("d_out", call.d_out, 2);
  const std::int64_t rows = call.d_out.size(0);
  const std::int64_t width =
      call.kind == Activation::Swiglu ? 2 * call.d_out.size(1) : call.d_out.size(1);
  check.tensor("d_out", call.d_out, {rows, call.d_out.size(1)}, kFloats);
  check.tensor("x", call.x, {rows, width}, {call.d_out.dtype});
  check.tensor("d_x", call.d_x, {rows, width}, {call.d_out.dtype});
}

namespace {

/// Elementwise operators take any number of dimensions.
void alike(const CallChecker& check, const char* name, const ConstTensorView& tensor,
           const ConstTensorView& model, std::initializer_list<DType> dtypes) {
  check.require(tensor.shape.same_sizes(model.shape), [&] {
    return std::string("tensor \"") + name + "\" is " + tensor.shape.text() + ", but should be " +
           model.shape.text();
  });
  const auto& s = model.shape.size;
  switch (model.shape.rank) {
    case 1:
      return check.tensor(name, tensor, {s[0]}, dtypes);
    case 2:
      return check.tensor(name, tensor, {s[0], s[1]}, dtypes);
    case 3:
      return check.tensor(name, tensor, {s[0], s[1], s[2]}, dtypes);
    case 4:
      return check.tensor(name, tensor, {s[0], s[1], s[2], s[3]}, dtypes);
    default:
      check.require(false, [&] { return std::string("tensor \"") + name + "\" is missing"; });
  }
}

void probability_of(const CallChecker& check, float probability) {
  check.require(probability >= 0 && probability < 1, [&] {
    return "the probability to drop lies in [0, 1), not " + std::to_string(probability);
  });
}

}  // namespace

void check_call(const Add& call) {
  const CallChecker check("add");
  alike(check, "out", call.out, call.out, kFloats);
  alike(check, "a", call.a, call.out, {call.out.dtype});
  alike(check, "b", call.b, call.out, {call.out.dtype});
}

void check_call(const DropoutForward& call) {
  const CallChecker check("dropout_forward");
  probability_of(check, call.probability);
  check.require(call.offset % 4 == 0, "\"offset\" is a multiple of 4");
  alike(check, "x", call.x, call.x, kFloats);
  alike(check, "out", call.out, call.x, {call.x.dtype});
  alike(check, "mask", call.mask, call.x, kByte);
  if (call.residual.given()) alike(check, "residual", call.residual, call.x, {call.x.dtype});
}

void check_call(const DropoutBackward& call) {
  const CallChecker check("dropout_backward");
  probability_of(check, call.probability);
  alike(check, "d_out", call.d_out, call.d_out, kFloats);
  alike(check, "d_x", call.d_x, call.d_out, {call.d_out.dtype});
  alike(check, "mask", call.mask, call.d_out, kByte);
}

void check_call(const Cast& call) {
  const CallChecker check("cast");
  alike(check, "x", call.x, call.x, kCastable);
  alike(check, "out", call.out, call.x, kCastable);
  const bool is_fp8 = call.x.dtype == DType::F8E4m3 || call.out.dtype == DType::F8E4m3;
  check.require(call.scale.given() == is_fp8, "\"scale\" is given with fp8, and only then");
  if (is_fp8) check.tensor("scale", call.scale, {1}, kFp32);
}

void check_call(const Scale& call) {
  const CallChecker check("scale");
  alike(check, "x", call.x, call.x, kFloats);
  check.tensor("factor", call.factor, {1}, kFp32);
}

void check_call(const EmbeddingForward& call) {
  const CallChecker check("embedding_forward");
  check.rank("table", call.table, 2);
  check.rank("tokens", call.tokens, 1);
  const std::int64_t rows = call.tokens.size(0), h = call.table.size(1);
  check.tensor("tokens", call.tokens, {rows}, kInt32);
  check.tensor("table", call.table, {call.table.size(0), h}, kFloats);
  check.tensor("out", call.out, {rows, h}, {call.table.dtype});
  check.require(call.position_table.given() == call.positions.given(),
                "\"position_table\" and \"positions\" are given together");
  if (call.positions.given()) {
    check.rank("position_table", call.position_table, 2);
    check.tensor("position_table", call.position_table, {call.position_table.size(0), h},
                 {call.table.dtype});
    check.tensor("positions", call.positions, {rows}, kInt32);
  }
}

void check_call(const EmbeddingBackward& call) {
  const CallChecker check("embedding_backward");
  check.rank("d_out", call.d_out, 2);
  check.rank("d_table", call.d_table, 2);
  const std::int64_t rows = call.d_out.size(0), h = call.d_out.size(1);
  check.tensor("tokens", call.tokens, {rows}, kInt32);
  check.tensor("d_out", call.d_out, {rows, h}, kFloats);
  check.tensor("d_table", call.d_table, {call.d_table.size(0), h},
               statistics_dtype(call.d_out.dtype));
}

void check_call(const CrossEntropyForward& call) {
  const CallChecker check("cross_entropy_forward");
  check.rank("logits", call.logits, 2);
  const std::int64_t rows = call.logits.size(0);
  const auto statistics = statistics_dtype(call.logits.dtype);
  check.tensor("logits", call.logits, {rows, call.logits.size(1)}, kFloats);
  check.tensor("targets", call.targets, {rows}, kInt32);
  check.tensor("maximum", call.maximum, {rows}, statistics);
  check.tensor("sum", call.sum, {rows}, statistics);
  check.tensor("target_logit", call.target_logit, {rows}, statistics);
  check.require(call.vocabulary >= 1, "\"vocabulary\" is at least 1");
}

void check_call(const CrossEntropyRescale& call) {
  const CallChecker check("cross_entropy_rescale");
  check.rank("sum", call.sum, 1);
  const std::int64_t rows = call.sum.size(0);
  check.tensor("sum", call.sum, {rows}, {DType::F32, DType::F64});
  check.tensor("maximum", call.maximum, {rows}, {call.sum.dtype});
  check.tensor("local_maximum", call.local_maximum, {rows}, {call.sum.dtype});
}

void check_call(const CrossEntropyBackward& call) {
  const CallChecker check("cross_entropy_backward");
  check.rank("logits", call.logits, 2);
  const std::int64_t rows = call.logits.size(0);
  const auto statistics = statistics_dtype(call.logits.dtype);
  check.tensor("logits", call.logits, {rows, call.logits.size(1)}, kFloats);
  check.tensor("targets", call.targets, {rows}, kInt32);
  check.tensor("maximum", call.maximum, {rows}, statistics);
  check.tensor("sum", call.sum, {rows}, statistics);
  check.tensor("target_logit", call.target_logit, {rows}, statistics);
  check.tensor("loss_scale", call.loss_scale, {rows}, statistics);
  check.tensor("loss", call.loss, {rows}, statistics);
  check.require(call.vocabulary >= 1, "\"vocabulary\" is at least 1");
}

void check_call(const AdamUpdate& call) {
  const CallChecker check("adam_update");
  check.rank("master", call.master, 1);
  const std::int64_t n = call.master.size(0);
  check.tensor("master", call.master, {n}, {DType::F32, DType::F64});
  const DType state = call.master.dtype;
  check.tensor("first_moment", call.first_moment, {n}, {state});
  check.tensor("second_moment", call.second_moment, {n}, {state});
  check.tensor("gradient", call.gradient, {n}, {state, DType::Bf16});
  if (call.parameter.given()) check.tensor("parameter", call.parameter, {n}, {DType::Bf16, state});
  if (call.gradient_scale.given()) check.tensor("gradient_scale", call.gradient_scale, {1}, kFp32);
  check.require(call.step >= 1, "\"step\" counts from 1");
}

void check_call(const SquaredSum& call) {
  const CallChecker check("squared_sum");
  alike(check, "x", call.x, call.x, kFloats);
  check.tensor("out", call.out, {1}, kFp64);
}

void check_call(const ClipFactor& call) {
  const CallChecker check("clip_factor");
  check.tensor("squared_sum", call.squared_sum, {1}, kFp64);
  check.tensor("factor", call.factor, {1}, kFp32);
  if (call.norm.given()) check.tensor("norm", call.norm, {1}, kFp32);
  check.require(call.max_norm > 0, "\"max_norm\" is positive");
}

void check_call(const BucketCopy& call) {
  const CallChecker check("bucket_copy");
  check.rank("bucket", call.bucket, 1);
  check.tensor("bucket", call.bucket, {call.bucket.size(0)}, kFloats);
  std::int64_t elements = 0;
  for (const TensorView& tensor : call.tensors) {
    check.require(tensor.given(), "one of \"tensors\" is missing");
    TensorView rows = tensor;
    rows.shape = {tensor.size(0), tensor.shape.row_elements()};
    rows.shape.stride = tensor.shape.stride;
    check.strided("tensors", rows, {rows.size(0), rows.size(1)}, kFloats);
    elements += tensor.elements();
  }
  check.require(elements <= call.bucket.size(0), [&] {
    return "the tensors have " + std::to_string(elements) + " elements, the bucket only " +
           std::to_string(call.bucket.size(0));
  });
}

void check_call(const BucketReduce& call) {
  const CallChecker check("bucket_reduce");
  check.require(!call.inputs.empty(), "there is nothing to add");
  alike(check, "out", call.out, call.out, kFloats);
  for (const ConstTensorView& input : call.inputs)
    alike(check, "inputs", input, call.out, {call.inputs.front().dtype});
  check.require(call.inputs.front().dtype == call.out.dtype || call.out.dtype == DType::F32,
                "the sum is of the inputs' type or fp32");
}

}  // namespace rehearse
