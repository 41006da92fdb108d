// Tensors that begin in the middle of a 16-byte piece, as slices of buckets and of fused tensors
// do: the accesses that a kernel makes of whole pieces would end it there.
#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

/// One element behind where the buffer begins, and one element shorter.
TensorView shifted(const TensorView& buffer, TensorShape shape) {
  return {static_cast<std::byte*>(buffer.data) + element_bytes(buffer.dtype), buffer.dtype, shape};
}

constexpr std::int64_t kRows = 6, kWidth = 64;
const TensorShape kMatrix{kRows, kWidth};

HostTensor buffer(Random& random, DType dtype, std::int64_t elements = kRows * kWidth) {
  return random_tensor(random, dtype, {elements + 1});
}

}  // namespace

TEST_CASE("device: elementwise operators take tensors that begin at any element") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  CAPTURE(dtype_name(dtype));
  Random random(160);
  const HostTensor x = buffer(random, dtype), y = buffer(random, dtype);
  check_on_device({.tensors = {x, y, x}, .outputs = {2}, .kept = {2}, .call = [](const auto& t) {
                     return Add{.a = shifted(t[0], kMatrix),
                                .b = shifted(t[1], kMatrix),
                                .out = shifted(t[2], kMatrix)};
                   }});
  const HostTensor mask = HostTensor(DType::U8, {kRows * kWidth + 1});
  check_on_device(
      {.tensors = {x, x, mask}, .outputs = {1, 2}, .kept = {1, 2}, .call = [](const auto& t) {
         return DropoutForward{.x = shifted(t[0], kMatrix),
                               .out = shifted(t[1], kMatrix),
                               .mask = shifted(t[2], kMatrix),
                               .probability = 0.3f};
       }});
  const DType other = dtype == DType::F32 ? DType::Bf16 : DType::F32;
  check_on_device({.tensors = {x, buffer(random, other)},
                   .outputs = {1},
                   .kept = {1},
                   .call = [](const auto& t) {
                     return Cast{.x = shifted(t[0], kMatrix), .out = shifted(t[1], kMatrix)};
                   }});
  check_on_device({.tensors = {x, x}, .outputs = {1}, .kept = {1}, .call = [](const auto& t) {
                     return ActivationForward{.kind = Activation::Gelu,
                                              .x = shifted(t[0], kMatrix),
                                              .out = shifted(t[1], kMatrix)};
                   }});
}

TEST_CASE("device: rows and vocabularies take tensors that begin at any element") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  CAPTURE(dtype_name(dtype));
  Random random(161);
  const HostTensor x = buffer(random, dtype), weight = buffer(random, dtype, kWidth);
  const HostTensor column(DType::F32, {kRows});
  check_on_device({.tensors = {x, weight, x, column},
                   .outputs = {2, 3},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return NormForward{.kind = Norm::RmsNorm,
                                        .x = shifted(t[0], kMatrix),
                                        .weight = shifted(t[1], {kWidth}),
                                        .out = shifted(t[2], kMatrix),
                                        .inverse_deviation = t[3]};
                   }});
  const HostTensor tokens = random_ints(random, {kRows}, 5);
  check_on_device({.tensors = {tokens, buffer(random, dtype, 5 * kWidth), x},
                   .outputs = {2},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return EmbeddingForward{.tokens = t[0],
                                             .table = shifted(t[1], {5, kWidth}),
                                             .out = shifted(t[2], kMatrix)};
                   }});
  check_on_device({.tensors = {x, tokens, column, column, column},
                   .outputs = {2, 3, 4},
                   .call = [](const auto& t) {
                     return CrossEntropyForward{.logits = shifted(t[0], kMatrix),
                                                .targets = t[1],
                                                .vocabulary = kWidth,
                                                .maximum = t[2],
                                                .sum = t[3],
                                                .target_logit = t[4]};
                   }});
  const HostTensor table = random_tensor(random, DType::F32, {kRows, 32}),
                   places = random_ints(random, {kRows}, kRows);
  check_on_device(
      {.tensors = {x, table, places}, .outputs = {0}, .kept = {0}, .call = [](const auto& t) {
         return Rope{.x = shifted(t[0], {kRows, 2, 32}), .cosine_sine = t[1], .positions = t[2]};
       }});
}

TEST_CASE("device: the optimizer takes slices of a bucket that begin at any element") {
  Random random(162);
  constexpr std::int64_t kCount = kRows * kWidth;
  const auto state = [&] { return buffer(random, DType::F32); };
  HostTensor second = state();
  for (std::int64_t i = 0; i <= kCount; ++i) second.set(i, second.at(i) * second.at(i));
  check_on_device({.tensors = {state(), state(), second, state(), buffer(random, DType::Bf16)},
                   .outputs = {0, 1, 2, 4},
                   .kept = {0, 1, 2, 4},
                   .call = [](const auto& t) {
                     return AdamUpdate{.master = shifted(t[0], {kCount}),
                                       .first_moment = shifted(t[1], {kCount}),
                                       .second_moment = shifted(t[2], {kCount}),
                                       .gradient = shifted(t[3], {kCount}),
                                       .parameter = shifted(t[4], {kCount}),
                                       .learning_rate = 1e-3f,
                                       .step = 3};
                   }});
  check_on_device({.tensors = {state(), constant_tensor(DType::F64, {1}, 0)},
                   .outputs = {1},
                   .call = [](const auto& t) {
                     return SquaredSum{.x = shifted(t[0], {kCount}), .out = t[1]};
                   }});
}

TEST_CASE("device: products take operands that begin at any element") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  CAPTURE(dtype_name(dtype));
  Random random(163);
  const HostTensor a = buffer(random, dtype, 40 * 24), b = buffer(random, dtype, 16 * 24),
                   out = buffer(random, dtype, 40 * 16), bias = buffer(random, dtype, 16);
  check_on_device(
      {.tensors = {a, b, out, bias}, .outputs = {2}, .kept = {2}, .call = [](const auto& t) {
         return Gemm{.a = shifted(t[0], {40, 24}),
                     .b = shifted(t[1], {16, 24}),
                     .out = shifted(t[2], {40, 16}),
                     .transpose_b = true,
                     .epilogue = Epilogue::Bias,
                     .bias = shifted(t[3], {16})};
       }});
  // Aligned tensors of a batch whose later matrices are not.
  check_on_device(
      {.tensors = {random_tensor(random, dtype, {3, 5, 7}), random_tensor(random, dtype, {3, 7, 3}),
                   HostTensor(dtype, {3, 5, 3})},
       .outputs = {2},
       .call = [](const auto& t) { return Gemm{.a = t[0], .b = t[1], .out = t[2]}; }});
  const HostTensor offsets = int_tensor({0, 13, 40});
  check_on_device({.tensors = {a, buffer(random, dtype, 2 * 16 * 24), out, offsets},
                   .outputs = {2},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return GroupedGemm{.product = GroupedProduct::Forward,
                                        .a = shifted(t[0], {40, 24}),
                                        .b = shifted(t[1], {2, 16, 24}),
                                        .out = shifted(t[2], {40, 16}),
                                        .offsets = t[3]};
                   }});
}

TEST_CASE("device: attention takes heads that begin at any element") {
  Random random(164);
  constexpr std::int64_t kTokens = 21, kHead = 64;
  const TensorShape shape{kTokens, 2, kHead};
  const auto heads = [&] { return buffer(random, DType::Bf16, kTokens * 2 * kHead); };
  const HostTensor offsets = int_tensor({0, 4, 21}), lse(DType::F32, {2, kTokens});
  const auto shape_of = [](const TensorView& at) {
    return AttentionShape{.query_offsets = at,
                          .key_offsets = at,
                          .max_query_length = 17,
                          .max_key_length = 17,
                          .causal = true,
                          .scale = 0.125f};
  };
  const HostTensor query = heads(), key = heads(), value = heads(), d_out = heads();
  DeviceCase forward{.tensors = {query, key, value, heads(), lse, offsets},
                     .outputs = {3, 4},
                     .kept = {3},
                     .call = [&](const auto& t) {
                       return AttentionForward{.query = shifted(t[0], shape),
                                               .key = shifted(t[1], shape),
                                               .value = shifted(t[2], shape),
                                               .out = shifted(t[3], shape),
                                               .log_sum_exp = t[4],
                                               .shape = shape_of(t[5])};
                     }};
  forward = check_on_device(forward);
  check_on_device({.tensors = {d_out, query, key, value, forward.tensors[3], forward.tensors[4],
                               heads(), heads(), heads(), offsets},
                   .outputs = {6, 7, 8},
                   .kept = {6, 7, 8},
                   .call = [&](const auto& t) {
                     return AttentionBackward{.d_out = shifted(t[0], shape),
                                              .query = shifted(t[1], shape),
                                              .key = shifted(t[2], shape),
                                              .value = shifted(t[3], shape),
                                              .out = shifted(t[4], shape),
                                              .log_sum_exp = t[5],
                                              .d_query = shifted(t[6], shape),
                                              .d_key = shifted(t[7], shape),
                                              .d_value = shifted(t[8], shape),
                                              .shape = shape_of(t[9])};
                   }});
}
