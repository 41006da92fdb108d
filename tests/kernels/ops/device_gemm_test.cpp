#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

struct Sizes {
  std::int64_t m, n, k;
};
const Sizes kSizes[] = {{64, 96, 128}, {33, 17, 50}, {1, 8, 16}, {130, 5, 1}};

}  // namespace

TEST_CASE("device: matrix products agree with the CPU in the three layouts of a linear layer") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  const auto [m, n, k] = kSizes[GENERATE(range<std::size_t>(0, std::size(kSizes)))];
  CAPTURE(dtype_name(dtype), m, n, k);
  Random random(140);
  const HostTensor x = random_tensor(random, dtype, {m, k}),
                   w = random_tensor(random, dtype, {n, k});
  const HostTensor dy = random_tensor(random, dtype, {m, n}),
                   dw = random_tensor(random, DType::F32, {n, k});
  check_on_device({.tensors = {x, w, dy}, .outputs = {2}, .call = [](const auto& t) {
                     return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_b = true};
                   }});
  check_on_device({.tensors = {dy, w, x}, .outputs = {2}, .call = [](const auto& t) {
                     return Gemm{.a = t[0], .b = t[1], .out = t[2]};
                   }});
  check_on_device(
      {.tensors = {dy, x, dw}, .outputs = {2}, .kept = {2}, .call = [](const auto& t) {
         return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_a = true, .accumulate = true};
       }});
}

TEST_CASE("device: batched products, slices of columns and empty sums agree with the CPU") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  Random random(141);
  check_on_device(
      {.tensors = {random_tensor(random, dtype, {3, 20, 24}),
                   random_tensor(random, dtype, {3, 16, 24}), HostTensor(dtype, {3, 20, 16})},
       .outputs = {2},
       .call = [](const auto& t) {
         return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_b = true};
       }});
  check_on_device(
      {.tensors = {random_tensor(random, dtype, {20, 48}), random_tensor(random, dtype, {16, 24}),
                   random_tensor(random, dtype, {20, 40})},
       .outputs = {2},
       .kept = {2},
       .call = [](const auto& t) {
         return Gemm{.a = slice_columns(t[0], 16, 24),
                     .b = t[1],
                     .out = slice_columns(t[2], 8, 16),
                     .transpose_b = true};
       }});
  check_on_device(
      {.tensors = {HostTensor(dtype, {5, 0}), HostTensor(dtype, {0, 7}), HostTensor(dtype, {5, 7})},
       .outputs = {2},
       .call = [](const auto& t) { return Gemm{.a = t[0], .b = t[1], .out = t[2]}; }});
}

TEST_CASE("device: epilogues agree with the CPU, fused or not") {
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  const DType bias_type = GENERATE(DType::F32, DType::Bf16);
  if (dtype == DType::F32 && bias_type == DType::Bf16) return;  // refused
  const std::int64_t n = GENERATE(as<std::int64_t>{}, 64, 19), m = 40, k = 32;
  CAPTURE(dtype_name(dtype), dtype_name(bias_type), n);
  Random random(142);
  const HostTensor a = random_tensor(random, dtype, {m, k}, 0.5),
                   b = random_tensor(random, dtype, {n, k}, 0.5);
  const HostTensor bias = random_tensor(random, bias_type, {n}), out(dtype, {m, n}),
                   pre = random_tensor(random, dtype, {m, n});
  check_on_device({.tensors = {a, b, bias, out}, .outputs = {3}, .call = [](const auto& t) {
                     return Gemm{.a = t[0],
                                 .b = t[1],
                                 .out = t[3],
                                 .transpose_b = true,
                                 .epilogue = Epilogue::Bias,
                                 .bias = t[2]};
                   }});
  check_on_device({.tensors = {a, b, bias, out, pre}, .outputs = {3, 4}, .call = [](const auto& t) {
                     return Gemm{.a = t[0],
                                 .b = t[1],
                                 .out = t[3],
                                 .transpose_b = true,
                                 .epilogue = Epilogue::BiasGelu,
                                 .bias = t[2],
                                 .pre_activation = t[4]};
                   }});
  check_on_device({.tensors = {a, b, out, pre}, .outputs = {2}, .call = [](const auto& t) {
                     return Gemm{.a = t[0],
                                 .b = t[1],
                                 .out = t[2],
                                 .transpose_b = true,
                                 .epilogue = Epilogue::GeluGradient,
                                 .pre_activation = t[3]};
                   }});
}

TEST_CASE("device: fp8 products agree with the CPU where the device has fp8") {
  if (device_is_fast() && (device_under_test() == nullptr)) {
    WARN("SKIPPED: " + why_no_device());
    return;
  }
  Random random(143);
  const HostTensor a = random_tensor(random, DType::F8E4m3, {32, 64}),
                   b = random_tensor(random, DType::F8E4m3, {48, 64});
  const HostTensor a_scale = constant_tensor(DType::F32, {1}, 0.25),
                   b_scale = constant_tensor(DType::F32, {1}, 2);
  try {
    check_on_device({.tensors = {a, b, HostTensor(DType::Bf16, {32, 48}), a_scale, b_scale},
                     .outputs = {2},
                     .call = [](const auto& t) {
                       return Gemm{.a = t[0],
                                   .b = t[1],
                                   .out = t[2],
                                   .transpose_b = true,
                                   .a_scale = t[3],
                                   .b_scale = t[4]};
                     }});
  } catch (const OperatorError& error) {
    WARN(std::string("SKIPPED: ") + error.what());
  }
}
