#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

namespace {

/// op(a)·op(b) by the definition, in double.
HostTensor product(const HostTensor& a, bool transpose_a, const HostTensor& b, bool transpose_b) {
  const std::int64_t m = a.size(transpose_a ? 1 : 0), k = a.size(transpose_a ? 0 : 1);
  const std::int64_t n = b.size(transpose_b ? 0 : 1);
  HostTensor out(DType::F64, {m, n});
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t p = 0; p < k; ++p)
        sum +=
            a.at(transpose_a ? p * m + i : i * k + p) * b.at(transpose_b ? j * k + p : p * n + j);
      out.set(i * n + j, sum);
    }
  return out;
}

double tanh_gelu(double x) {
  return 0.5 * x *
         (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

}  // namespace

TEST_CASE("matrix products agree with the definition in every layout and type") {
  Random random(11);
  const DType dtype = GENERATE(DType::F32, DType::Bf16, DType::F64);
  const bool transpose_a = GENERATE(false, true), transpose_b = GENERATE(false, true);
  const std::int64_t m = 37, n = 21, k = 53;
  const HostTensor a =
      random_tensor(random, dtype, transpose_a ? TensorShape{k, m} : TensorShape{m, k});
  const HostTensor b =
      random_tensor(random, dtype, transpose_b ? TensorShape{n, k} : TensorShape{k, n});
  const HostTensor expected = product(a, transpose_a, b, transpose_b);
  HostTensor out(dtype, {m, n});
  out.poison();
  Gemm call{.a = a, .b = b, .out = out, .transpose_a = transpose_a, .transpose_b = transpose_b};
  cpu().run(call);
  CHECK(relative_error(out, expected) < error_bound(dtype));

  SECTION("and add to what is there where they accumulate into fp32") {
    const DType wide = dtype == DType::F64 ? DType::F64 : DType::F32;
    HostTensor sum = constant_tensor(wide, {m, n}, 2);
    call.out = sum;
    call.accumulate = true;
    cpu().run(call);
    HostTensor shifted = expected;
    for (std::int64_t i = 0; i < m * n; ++i) shifted.set(i, expected.at(i) + 2);
    CHECK(relative_error(sum, shifted) < error_bound(wide));
  }
}

TEST_CASE("a product reads and writes columns of wider matrices") {
  Random random(12);
  HostTensor wide = random_tensor(random, DType::F32, {6, 10});
  const HostTensor b = random_tensor(random, DType::F32, {4, 3});
  HostTensor out = constant_tensor(DType::F32, {6, 8}, 9);
  cpu().run(
      Gemm{.a = slice_columns(wide.view(), 2, 4), .b = b, .out = slice_columns(out.view(), 5, 3)});
  HostTensor cut(DType::F32, {6, 4});
  for (std::int64_t i = 0; i < 24; ++i) cut.set(i, wide.at(i / 4 * 10 + 2 + i % 4));
  const HostTensor expected = product(cut, false, b, false);
  for (std::int64_t i = 0; i < 6; ++i)
    for (std::int64_t j = 0; j < 8; ++j) {
      CAPTURE(i, j);
      CHECK(out.at(i * 8 + j) == Approx(j < 5 ? 9 : expected.at(i * 3 + j - 5)).margin(1e-5));
    }
}

TEST_CASE("batched products are products one by one, and nothing to sum is zero") {
  Random random(13);
  const HostTensor a = random_tensor(random, DType::F32, {3, 4, 5});
  const HostTensor b = random_tensor(random, DType::F32, {3, 5, 2});
  HostTensor out(DType::F32, {3, 4, 2}), one(DType::F32, {4, 2});
  cpu().run(Gemm{.a = a, .b = b, .out = out});
  for (std::int64_t i = 0; i < 3; ++i) {
    cpu().run(Gemm{.a = reshaped(slice_rows(a.view(), i, 1), {4, 5}),
                   .b = reshaped(slice_rows(b.view(), i, 1), {5, 2}),
                   .out = one});
    for (std::int64_t j = 0; j < 8; ++j) CHECK(out.at(i * 8 + j) == one.at(j));
  }
  const HostTensor empty_a(DType::F32, {4, 0}), empty_b(DType::F32, {0, 2});
  one.poison();
  cpu().run(Gemm{.a = empty_a, .b = empty_b, .out = one});
  for (std::int64_t j = 0; j < 8; ++j) CHECK(one.at(j) == 0);
}

TEST_CASE("epilogues add the bias, apply GeLU and its gradient") {
  Random random(14);
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  const HostTensor a = random_tensor(random, dtype, {9, 7}),
                   b = random_tensor(random, dtype, {5, 7}, 0.4);
  const HostTensor bias = random_tensor(random, dtype, {5});
  const HostTensor plain = product(a, false, b, true);
  HostTensor out(dtype, {9, 5}), pre(dtype, {9, 5}), expected(DType::F64, {9, 5});
  out.poison();
  cpu().run(Gemm{
      .a = a, .b = b, .out = out, .transpose_b = true, .epilogue = Epilogue::Bias, .bias = bias});
  for (std::int64_t i = 0; i < 45; ++i) expected.set(i, plain.at(i) + bias.at(i % 5));
  CHECK(relative_error(out, expected) < error_bound(dtype));

  Gemm gelu{.a = a,
            .b = b,
            .out = out,
            .transpose_b = true,
            .epilogue = Epilogue::BiasGelu,
            .bias = bias,
            .pre_activation = pre};
  cpu().run(gelu);
  CHECK(relative_error(pre, expected) < error_bound(dtype));
  for (std::int64_t i = 0; i < 45; ++i) expected.set(i, tanh_gelu(expected.at(i)));
  CHECK(relative_error(out, expected) < error_bound(dtype));

  cpu().run(Gemm{.a = a,
                 .b = b,
                 .out = out,
                 .transpose_b = true,
                 .epilogue = Epilogue::GeluGradient,
                 .pre_activation = pre});
  for (std::int64_t i = 0; i < 45; ++i) {
    const double x = pre.at(i), h = 1e-6;
    expected.set(i, plain.at(i) * (tanh_gelu(x + h) - tanh_gelu(x - h)) / (2 * h));
  }
  CHECK(relative_error(out, expected) < error_bound(dtype));
}

TEST_CASE("fp8 products scale their operands") {
  Random random(15);
  const HostTensor a = random_tensor(random, DType::F8E4m3, {8, 16}),
                   b = random_tensor(random, DType::F8E4m3, {4, 16});
  const HostTensor a_scale = constant_tensor(DType::F32, {1}, 0.5),
                   b_scale = constant_tensor(DType::F32, {1}, 3);
  HostTensor out(DType::F32, {8, 4}), expected = product(a, false, b, true);
  cpu().run(Gemm{
      .a = a, .b = b, .out = out, .transpose_b = true, .a_scale = a_scale, .b_scale = b_scale});
  for (std::int64_t i = 0; i < 32; ++i) expected.set(i, 1.5 * expected.at(i));
  CHECK(relative_error(out, expected) < 1e-5);
}

TEST_CASE("grouped products treat each expert's rows with its own weights") {
  Random random(16);
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  const std::int64_t experts = 4, rows = 13, in = 6, out_width = 5;
  const HostTensor offsets = int_tensor({0, 5, 5, 12, 13});  // one expert has no rows
  const HostTensor x = random_tensor(random, dtype, {rows, in});
  const HostTensor w = random_tensor(random, dtype, {experts, out_width, in});
  const HostTensor dy = random_tensor(random, dtype, {rows, out_width});
  HostTensor y(dtype, {rows, out_width}), dx(dtype, {rows, in}),
      dw = constant_tensor(DType::F32, {experts, out_width, in}, 1);
  HostTensor y_expected(DType::F64, {rows, out_width}), dx_expected(DType::F64, {rows, in});
  HostTensor dw_expected = constant_tensor(DType::F64, {experts, out_width, in}, 1);
  for (std::int64_t e = 0; e < experts; ++e)
    for (auto r = static_cast<int>(offsets.at(e)); r < static_cast<int>(offsets.at(e + 1)); ++r)
      for (std::int64_t o = 0; o < out_width; ++o)
        for (std::int64_t i = 0; i < in; ++i) {
          const std::int64_t at = (e * out_width + o) * in + i, yo = r * out_width + o,
                             xi = r * in + i;
          y_expected.set(yo, y_expected.at(yo) + x.at(xi) * w.at(at));
          dx_expected.set(xi, dx_expected.at(xi) + dy.at(yo) * w.at(at));
          dw_expected.set(at, dw_expected.at(at) + dy.at(yo) * x.at(xi));
        }
  cpu().run(GroupedGemm{
      .product = GroupedProduct::Forward, .a = x, .b = w, .out = y, .offsets = offsets});
  cpu().run(GroupedGemm{
      .product = GroupedProduct::InputGradient, .a = dy, .b = w, .out = dx, .offsets = offsets});
  cpu().run(GroupedGemm{.product = GroupedProduct::WeightGradient,
                        .a = dy,
                        .b = x,
                        .out = dw,
                        .offsets = offsets,
                        .accumulate = true});
  CHECK(relative_error(y, y_expected) < error_bound(dtype));
  CHECK(relative_error(dx, dx_expected) < error_bound(dtype));
  CHECK(relative_error(dw, dw_expected) < error_bound(DType::F32));
  const HostTensor falling = int_tensor({0, 5, 4, 12, 13});
  CHECK_THROWS_AS(cpu().run(GroupedGemm{.a = x, .b = w, .out = y, .offsets = falling}),
                  OperatorError);
}

TEST_CASE("column sums are the gradient of a bias") {
  Random random(17);
  const HostTensor x = random_tensor(random, DType::Bf16, {100, 7});
  HostTensor out = constant_tensor(DType::F32, {7}, 3);
  cpu().run(ColumnSum{.x = x, .out = out, .accumulate = true});
  for (std::int64_t j = 0; j < 7; ++j) {
    double sum = 3;
    for (std::int64_t i = 0; i < 100; ++i) sum += x.at(i * 7 + j);
    CHECK(out.at(j) == Approx(sum).epsilon(1e-6));
  }
}
