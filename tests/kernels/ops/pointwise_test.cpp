#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

namespace {

struct NormProblem {
  Norm kind;
  HostTensor x, residual, weight, bias, sum, out, mean, inverse;

  NormProblem(Norm norm, DType dtype, std::int64_t rows, std::int64_t h, Random& random)
      : kind(norm),
        x(random_tensor(random, dtype, {rows, h}, 2)),
        residual(random_tensor(random, dtype, {rows, h})),
        weight(random_tensor(random, dtype, {h})),
        bias(random_tensor(random, dtype, {h})),
        sum(dtype, {rows, h}),
        out(dtype, {rows, h}),
        mean(dtype == DType::F64 ? DType::F64 : DType::F32, {rows}),
        inverse(mean.dtype(), {rows}) {}

  void forward() {
    for (HostTensor* one : {&sum, &out, &mean, &inverse}) one->poison();
    NormForward call{.kind = kind,
                     .x = x,
                     .residual = residual,
                     .weight = weight,
                     .sum = sum,
                     .out = out,
                     .inverse_deviation = inverse};
    if (kind == Norm::LayerNorm) {
      call.bias = bias;
      call.mean = mean;
    }
    cpu().run(call);
  }
};

}  // namespace

TEST_CASE("norms with a fused residual equal their definition") {
  const Norm kind = GENERATE(Norm::RmsNorm, Norm::LayerNorm);
  const DType dtype = GENERATE(DType::F32, DType::Bf16, DType::F64);
  Random random(60);
  const std::int64_t rows = 7, h = 33;
  NormProblem p(kind, dtype, rows, h, random);
  p.forward();
  HostTensor expected(DType::F64, {rows, h});
  for (std::int64_t i = 0; i < rows; ++i) {
    double mean = 0, variance = 0;
    for (std::int64_t j = 0; j < h; ++j) mean += p.sum.at(i * h + j) / static_cast<double>(h);
    if (kind == Norm::RmsNorm) mean = 0;
    for (std::int64_t j = 0; j < h; ++j)
      variance += std::pow(p.sum.at(i * h + j) - mean, 2) / static_cast<double>(h);
    for (std::int64_t j = 0; j < h; ++j)
      expected.set(i * h + j,
                   (p.sum.at(i * h + j) - mean) / std::sqrt(variance + 1e-5f) * p.weight.at(j) +
                       (kind == Norm::LayerNorm ? p.bias.at(j) : 0));
  }
  CHECK(relative_error(p.out, expected) < error_bound(dtype));
  for (std::int64_t i = 0; i < rows * h; ++i)
    CHECK(p.sum.at(i) ==
          Approx(p.x.at(i) + p.residual.at(i)).margin(dtype == DType::Bf16 ? 0.04 : 1e-6));
}

TEST_CASE("norm gradients equal finite differences and carry the residual's gradient along") {
  const Norm kind = GENERATE(Norm::RmsNorm, Norm::LayerNorm);
  Random random(61);
  const std::int64_t rows = 4, h = 9;
  NormProblem p(kind, DType::F64, rows, h, random);
  const HostTensor d_out = random_tensor(random, DType::F64, {rows, h}),
                   d_sum = random_tensor(random, DType::F64, {rows, h});
  p.forward();
  HostTensor d_x(DType::F64, {rows, h}), d_weight = constant_tensor(DType::F64, {h}, 5),
                                         d_bias = d_weight;
  NormBackward call{.kind = kind,
                    .d_out = d_out,
                    .x = p.sum,
                    .weight = p.weight,
                    .inverse_deviation = p.inverse,
                    .d_residual = d_sum,
                    .d_x = d_x,
                    .d_weight = d_weight,
                    .accumulate = true};
  if (kind == Norm::LayerNorm) {
    call.mean = p.mean;
    call.d_bias = d_bias;
  }
  cpu().run(call);
  const auto loss = [&] {
    p.forward();
    return inner_product(p.out, d_out) + inner_product(p.sum, d_sum);
  };
  CHECK(gradient_error(p.x, d_x, loss) < 1e-7);
  CHECK(gradient_error(p.residual, d_x, loss) < 1e-7);
  for (std::int64_t j = 0; j < h; ++j) {
    d_weight.set(j, d_weight.at(j) - 5);  // it was added to what was there
    d_bias.set(j, d_bias.at(j) - 5);
  }
  CHECK(gradient_error(p.weight, d_weight, loss) < 1e-7);
  if (kind == Norm::LayerNorm) CHECK(gradient_error(p.bias, d_bias, loss) < 1e-7);
}

TEST_CASE("activations equal their definitions, and their gradients finite differences") {
  const Activation kind = GENERATE(Activation::Gelu, Activation::Swiglu, Activation::SquaredRelu);
  Random random(62);
  const std::int64_t rows = 5, f = 7, width = kind == Activation::Swiglu ? 2 * f : f;
  HostTensor x = random_tensor(random, DType::F64, {rows, width}, 2), out(DType::F64, {rows, f});
  const HostTensor d_out = random_tensor(random, DType::F64, {rows, f});
  HostTensor d_x(DType::F64, {rows, width});
  const auto forward = [&] { cpu().run(ActivationForward{.kind = kind, .x = x, .out = out}); };
  forward();
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < f; ++j) {
      const double a = x.at(i * width + j);
      double expected = a > 0 ? a * a : 0;
      if (kind == Activation::Gelu)
        expected =
            0.5 * a *
            (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (a + 0.044715 * a * a * a)));
      if (kind == Activation::Swiglu) expected = a / (1 + std::exp(-a)) * x.at(i * width + f + j);
      CHECK(out.at(i * f + j) == Approx(expected).margin(1e-12));
    }
  cpu().run(ActivationBackward{.kind = kind, .x = x, .d_out = d_out, .d_x = d_x});
  CHECK(gradient_error(
            x, d_x,
            [&] {
              forward();
              return inner_product(out, d_out);
            },
            100) < 1e-7);

  SECTION("in fp32 and bf16 they agree with fp64") {
    for (const DType dtype : {DType::F32, DType::Bf16}) {
      HostTensor narrow(dtype, x.shape()), result(dtype, out.shape());
      for (std::int64_t i = 0; i < x.elements(); ++i) {
        narrow.set(i, x.at(i));
        x.set(i, narrow.at(i));
      }
      forward();
      cpu().run(ActivationForward{.kind = kind, .x = narrow, .out = result});
      CHECK(relative_error(result, out) < error_bound(dtype));
    }
  }
}

TEST_CASE("dropout keeps the stated share, scales it, and repeats for the same seed and offset") {
  Random random(63);
  const HostTensor x = random_tensor(random, DType::F32, {100, 101}),
                   residual = random_tensor(random, DType::F32, {100, 101});
  HostTensor out(DType::F32, x.shape()), again(DType::F32, x.shape()), mask(DType::U8, x.shape()),
      other(DType::U8, x.shape());
  DropoutForward call{.x = x,
                      .residual = residual,
                      .out = out,
                      .mask = mask,
                      .probability = 0.3f,
                      .seed = 9,
                      .offset = 8};
  cpu().run(call);
  double kept = 0;
  for (std::int64_t i = 0; i < x.elements(); ++i) {
    kept += mask.at(i);
    CHECK(out.at(i) == Approx(residual.at(i) + (mask.at(i) > 0 ? x.at(i) / 0.7 : 0)).margin(1e-5));
  }
  CHECK(kept / static_cast<double>(x.elements()) == Approx(0.7).margin(0.015));  // 3 deviations
  call.out = again;
  cpu().run(call);
  CHECK(relative_error(again, out) == 0);
  call.offset = 12;  // four numbers further: the same stream, shifted
  call.mask = other;
  cpu().run(call);
  for (std::int64_t i = 0; i + 4 < x.elements(); ++i) CHECK(other.at(i) == mask.at(i + 4));
  HostTensor d_x(DType::F32, x.shape());
  cpu().run(DropoutBackward{.d_out = x, .mask = mask, .d_x = d_x, .probability = 0.3f});
  for (std::int64_t i = 0; i < x.elements(); ++i)
    CHECK(d_x.at(i) == Approx(mask.at(i) > 0 ? x.at(i) / 0.7 : 0).margin(1e-5));
}

TEST_CASE("Philox gives the published words") {
  // Known-answer tests of the Random123 library for philox4x32-10, counter and key zero.
  HostTensor mask(DType::U8, {4});
  const HostTensor x = constant_tensor(DType::F32, {4}, 1);
  HostTensor out(DType::F32, {4});
  const double words[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (int i = 0; i < 4; ++i)
    for (const double shift : {-1e-4, 1e-4}) {  // just below and just above the word's share
      cpu().run(DropoutForward{.x = x,
                               .out = out,
                               .mask = mask,
                               .probability = static_cast<float>(words[i] / 4294967296.0 + shift)});
      CHECK(mask.at(i) == (shift < 0 ? 1 : 0));
    }
}

TEST_CASE("casts round once, and fp8 goes through its scale") {
  Random random(64);
  const HostTensor x = random_tensor(random, DType::F32, {3, 50});
  HostTensor narrow(DType::Bf16, x.shape()), wide(DType::F32, x.shape()),
      tiny(DType::F8E4m3, x.shape());
  cpu().run(Cast{.x = x, .out = narrow});
  cpu().run(Cast{.x = narrow, .out = wide});
  for (std::int64_t i = 0; i < x.elements(); ++i)
    CHECK(wide.at(i) == to_float(to_bf16(static_cast<float>(x.at(i)))));
  const HostTensor scale = constant_tensor(DType::F32, {1}, 4.0 / 448);
  cpu().run(Cast{.x = x, .out = tiny, .scale = scale});
  cpu().run(Cast{.x = tiny, .out = wide, .scale = scale});
  CHECK(relative_error(wide, x) < 0.04);
  HostTensor scaled = x;
  const HostTensor factor = constant_tensor(DType::F32, {1}, 0.25);
  cpu().run(Scale{.x = scaled, .factor = factor});
  CHECK(scaled.at(17) == x.at(17) / 4);
}
