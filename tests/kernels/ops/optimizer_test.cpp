#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

TEST_CASE("Adam and AdamW follow their papers over several steps") {
  Random random(80);
  const bool decoupled = GENERATE(false, true);
  const std::int64_t n = 50;
  HostTensor w = random_tensor(random, DType::F32, {n}), m(DType::F32, {n}), v(DType::F32, {n}),
             narrow(DType::Bf16, {n});
  const HostTensor clip = constant_tensor(DType::F32, {1}, 0.5);
  std::vector<double> ew(n), em(n), ev(n);
  for (std::int64_t i = 0; i < n; ++i) ew[static_cast<std::size_t>(i)] = w.at(i);
  for (int step = 1; step <= 4; ++step) {
    const HostTensor g = random_tensor(random, DType::F32, {n});
    cpu().run(AdamUpdate{.master = w,
                         .first_moment = m,
                         .second_moment = v,
                         .gradient = g,
                         .parameter = narrow,
                         .gradient_scale = clip,
                         .learning_rate = 1e-2f,
                         .beta1 = 0.9f,
                         .beta2 = 0.99f,
                         .epsilon = 1e-8f,
                         .weight_decay = 0.1f,
                         .decoupled = decoupled,
                         .step = step});
    for (std::size_t i = 0; i < n; ++i) {
      double gradient = 0.5 * g.at(static_cast<std::int64_t>(i));
      if (!decoupled) gradient += 0.1 * ew[i];
      em[i] = 0.9 * em[i] + 0.1 * gradient;
      ev[i] = 0.99 * ev[i] + 0.01 * gradient * gradient;
      const double direction = em[i] / (1 - std::pow(0.9, step)) /
                               (std::sqrt(ev[i] / (1 - std::pow(0.99, step))) + 1e-8);
      ew[i] -= 0.01 * (direction + (decoupled ? 0.1 * ew[i] : 0));
    }
  }
  for (std::int64_t i = 0; i < n; ++i) {
    CHECK(w.at(i) == Approx(ew[static_cast<std::size_t>(i)]).epsilon(1e-4).margin(1e-6));
    CHECK(narrow.at(i) == to_float(to_bf16(static_cast<float>(w.at(i)))));
  }
}

TEST_CASE("the gradient norm adds up over tensors and clips only what is too long") {
  Random random(81);
  const HostTensor a = random_tensor(random, DType::F32, {123, 457}),
                   b = random_tensor(random, DType::Bf16, {77});
  HostTensor sum = constant_tensor(DType::F64, {1}, 99), factor(DType::F32, {1}),
             norm(DType::F32, {1});
  cpu().run(SquaredSum{.x = a, .out = sum});
  cpu().run(SquaredSum{.x = b, .out = sum, .accumulate = true});
  const double expected = inner_product(a, a) + inner_product(b, b);
  CHECK(sum.at(0) == Approx(expected).epsilon(1e-12));
  cpu().run(ClipFactor{.squared_sum = sum, .max_norm = 2, .norm = norm, .factor = factor});
  CHECK(norm.at(0) == Approx(std::sqrt(expected)));
  CHECK(factor.at(0) == Approx(2 / std::sqrt(expected)));
  cpu().run(ClipFactor{.squared_sum = sum, .max_norm = 1e6, .factor = factor});
  CHECK(factor.at(0) == 1);
}

TEST_CASE("results do not depend on the number of threads") {
  Random random(82);
  const HostTensor x = random_tensor(random, DType::F32, {300, 301});
  const auto with = [&](int threads) {
    const auto device = cpu_device(threads);
    HostTensor sum(DType::F64, {1}), columns(DType::F32, {301});
    device->run(SquaredSum{.x = x, .out = sum});
    device->run(ColumnSum{.x = x, .out = columns});
    return std::pair(sum.at(0), columns.at(17));
  };
  CHECK(with(1) == with(3));
}

TEST_CASE("a bucket packs tensors of two types, and unpacks what was packed") {
  Random random(83);
  HostTensor a = random_tensor(random, DType::Bf16, {3, 4}),
             b = random_tensor(random, DType::F32, {5});
  const HostTensor kept_a = a, kept_b = b;
  HostTensor bucket = constant_tensor(DType::F32, {20}, -7);
  cpu().run(BucketCopy{.tensors = {a, b}, .bucket = bucket});
  for (std::int64_t i = 0; i < 20; ++i)
    CHECK(bucket.at(i) == (i < 12 ? kept_a.at(i) : i < 17 ? kept_b.at(i - 12) : -7));
  a.poison();
  b.poison();
  cpu().run(BucketCopy{.tensors = {a, b}, .bucket = bucket, .unpack = true});
  CHECK(relative_error(a, kept_a) == 0);
  CHECK(relative_error(b, kept_b) == 0);
  HostTensor mean(DType::F32, {5});
  cpu().run(BucketReduce{.inputs = {b, b, kept_b}, .out = mean, .scale = 1.0f / 3});
  CHECK(relative_error(mean, b) < 1e-6);
}
