#include "plan/draws.h"

#include <cmath>

#include "plan/spread.h"
#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("Uniform draws fill the interval evenly and do not follow each other") {
  constexpr int kDraws = 20'000;
  double sum = 0, squares = 0, products = 0, before = uniform_draw(7, kDraws);
  for (int i = 0; i < kDraws; ++i) {
    const double x = uniform_draw(7, static_cast<std::uint64_t>(i));
    REQUIRE(x > 0);
    REQUIRE(x < 1);
    sum += x;
    squares += x * x;
    products += (x - 0.5) * (before - 0.5);
    before = x;
  }
  // Four standard errors: σ = √(1/12) of a mean, √(4/45) of a square, 1/12 of a product.
  CHECK(std::abs(sum / kDraws - 0.5) < 4 * std::sqrt(1.0 / 12 / kDraws));
  CHECK(std::abs(squares / kDraws - 1.0 / 3) < 4 * std::sqrt(4.0 / 45 / kDraws));
  CHECK(std::abs(products / kDraws) < 4.0 / 12 / std::sqrt(kDraws));
}

TEST_CASE("Normal draws have the moments of a standard normal distribution") {
  constexpr int kDraws = 20'000;
  double moments[5] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double z = normal_draw(3, static_cast<std::uint64_t>(i));
    double power = 1;
    for (double& moment : moments) {
      moment += power / kDraws;
      power *= z;
    }
  }
  // Standard errors of the moments: √1, √2, √15, √96 over √n.
  CHECK(std::abs(moments[1]) < 4 * std::sqrt(1.0 / kDraws));
  CHECK(std::abs(moments[2] - 1) < 4 * std::sqrt(2.0 / kDraws));
  CHECK(std::abs(moments[3]) < 4 * std::sqrt(15.0 / kDraws));
  CHECK(std::abs(moments[4] - 3) < 4 * std::sqrt(96.0 / kDraws));
}

TEST_CASE("A draw is a function of seed and index alone") {
  CHECK(normal_draw(1, 5) == normal_draw(1, 5));
  CHECK(normal_draw(1, 5) != normal_draw(1, 6));
  CHECK(normal_draw(1, 5) != normal_draw(2, 5));
  CHECK(derived_seed(1, 0) != derived_seed(1, 1));
  CHECK(slowness({0.02, 4}, GpuId{9}) == slowness({0.02, 4}, GpuId{9}));
  CHECK(slowness({0, 4}, GpuId{9}) == 1);
}

TEST_CASE("The slowest of n GPUs is as slow as order statistics say") {
  // Expected largest of n standard normal variables: 1/√π of 2, 3/(2√π) of 3 (exact), 1.42360 of 8
  // (Harter 1961, table 1).
  const double root_pi = std::sqrt(std::acos(-1.0));
  const struct {
    int gpus;
    double expected;
  } cases[] = {{2, 1 / root_pi}, {3, 1.5 / root_pi}, {8, 1.42360}};
  constexpr int kSeeds = 4000;
  constexpr double kDeviation = 0.015;
  for (const auto& [gpus, expected] : cases) {
    double sum = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      double slowest = 0;
      for (int gpu = 0; gpu < gpus; ++gpu)
        slowest = std::max(slowest, slowness({kDeviation, seed}, GpuId{gpu}));
      sum += std::log(slowest) / kDeviation;
    }
    // The largest spreads by less than 0.83 standard deviations; four standard errors.
    CHECK(std::abs(sum / kSeeds - expected) < 4 * 0.83 / std::sqrt(kSeeds));
  }
}
