#include "app/result.h"

#include "tests/catch.h"

using namespace rehearse;

namespace {

/// A plan of two devices, the first standing for three GPUs; a step of 10 s.
PlanOutcome outcome(const std::string& name, double bubble_s) {
  PlanOutcome result;
  result.plan.name = name;
  result.plan.dp = 4;
  result.metrics.step_time_s = 10 + bubble_s;
  DeviceMetrics busy;
  busy.work_s[static_cast<std::size_t>(WorkKind::Gemm)] = 6;
  busy.work_s[static_cast<std::size_t>(WorkKind::TensorComm)] = 1;
  busy.exposed_s[static_cast<std::size_t>(CommKind::Tensor)] = 2;
  busy.exposed_s[static_cast<std::size_t>(CommKind::Data)] = 1;
  busy.bubble_s = bubble_s;
  DeviceMetrics idle;
  idle.waiting_s = 10 + bubble_s;
  result.devices = {{.representative = Rank{0}, .members = 3}, {.representative = Rank{3}}};
  result.metrics.devices = {busy, idle};
  return result;
}

double total(const std::vector<TimePart>& parts) {
  return sum_of(parts, TimeGroup::Compute) + sum_of(parts, TimeGroup::Communication) +
         sum_of(parts, TimeGroup::Idle);
}

}  // namespace

TEST_CASE("the mean over GPUs weighs each device by those it stands for, and still adds up") {
  const DeviceMetrics mean = mean_device(outcome("a", 0));
  CHECK(mean.work_s[static_cast<std::size_t>(WorkKind::Gemm)] == Approx(4.5));
  CHECK(mean.waiting_s == Approx(2.5));
  CHECK(total(time_parts(mean)) == Approx(10));
}

TEST_CASE("communication that folding made computation is reported as communication") {
  const auto parts = time_parts(outcome("a", 0).metrics.devices[0]);
  CHECK(sum_of(parts, TimeGroup::Compute) == Approx(6));
  CHECK(sum_of(parts, TimeGroup::Communication) == Approx(4));
}

TEST_CASE("the fastest plan that fits wins, whatever is faster and does not") {
  VariantResult variant;
  variant.plans = {outcome("slow", 5), outcome("too big", 0), outcome("fast", 1),
                   outcome("impossible", 0)};
  variant.plans[1].fits = false;
  variant.plans[3].faults = {{"/tp", "no", ""}};
  REQUIRE(variant.winner());
  CHECK(*variant.winner() == 2);
  const std::string why = why_it_wins(variant);
  CHECK(why.find("fast is 1.36 times as fast as slow") == 0);
  CHECK(why.find("pipeline bubble") != std::string::npos);
}

TEST_CASE("equal plans are called equal, the first of them wins") {
  VariantResult variant;
  variant.plans = {outcome("one", 1), outcome("two", 1)};
  CHECK(*variant.winner() == 0);
  CHECK(why_it_wins(variant) == "one and two are equally fast.");
}

TEST_CASE("a run is infeasible only if no plan of any of its variants fits") {
  RunResult result;
  CHECK_FALSE(is_infeasible(result));
  result.variants.resize(2);
  for (VariantResult& variant : result.variants) {
    variant.plans = {outcome("a", 0)};
    variant.plans[0].fits = false;
  }
  CHECK(is_infeasible(result));
  result.variants[1].plans[0].fits = true;
  CHECK_FALSE(is_infeasible(result));
}

TEST_CASE("a plan's summary names what it is made of") {
  Plan plan;
  plan.tp = 8;
  plan.pp = 4;
  plan.virtual_stages = 2;
  plan.dp = 2;
  plan.zero = 1;
  CHECK(plan_summary(plan) ==
        "tp 8 · pp 4×2 · dp 2 · 1f1b · micro-batch 1 · ZeRO-1 · recompute none · bf16");
}

TEST_CASE("the gain of a way to share out work is how many more steps it makes than the first") {
  const BalanceComparison comparison{"layers of stages",
                                     {{"even", 3, false}, {"balanced", 2, true}}};
  CHECK(balance_gain(comparison, comparison.ways[0]) == 0);
  CHECK(balance_gain(comparison, comparison.ways[1]) == Approx(0.5));
}
