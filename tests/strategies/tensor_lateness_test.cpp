// Tensor ranks that wait for the latest of them.
#include "strategies/tensor_lateness.h"

#include <numeric>

#include "tests/strategies/lowering_support.h"

namespace rehearse {
namespace {

ChunkItem work(double seconds, double deviation) {
  ChunkItem item;
  item.item.seconds = seconds;
  item.deviation = deviation;
  return item;
}

ChunkItem collective(CommGroup group, double seconds) {
  ChunkItem item;
  item.is_collective = true;
  item.group = group;
  item.item.seconds = seconds;
  return item;
}

/// Mean lateness of many collectives, each after an operator of a second.
double mean_lateness_s(int ranks, double deviation, CommGroup group = CommGroup::Tensor,
                       int rows = 1) {
  constexpr int kMeetings = 200;
  std::vector<ChunkItem> items;
  for (int i = 0; i < kMeetings; ++i) {
    items.push_back(work(1, deviation));
    items.push_back(collective(group, 0.5));
  }
  add_tensor_lateness(items, ranks, rows);
  double sum_s = 0;
  for (const ChunkItem& item : items) {
    CHECK(item.item.seconds == Approx((item.is_collective ? 0.5 : 1) + item.late_s));
    sum_s += item.late_s;
  }
  return sum_s / kMeetings;
}

/// Prices whose executions vary by a fifth.
class VaryingCosts final : public FlatCosts {
 public:
  Cost cost(const Operator& op) const override {
    Cost cost = FlatCosts::cost(op);
    cost.deviation = 0.2;
    return cost;
  }
};

}  // namespace

TEST_CASE("ranks wait for the latest as long as the greatest of normal draws lies above the mean") {
  // Expected greatest of n standard normal draws (Harter 1961): 1/√π, 1.02938, 1.42360.
  CHECK(mean_lateness_s(2, 0.03) == Approx(0.03 * 0.56419).epsilon(0.03));
  CHECK(mean_lateness_s(4, 0.03) == Approx(0.03 * 1.02938).epsilon(0.03));
  CHECK(mean_lateness_s(8, 0.03) == Approx(0.03 * 1.42360).epsilon(0.03));
}

TEST_CASE("operators that always take the same time make nobody wait, and neither does one rank") {
  CHECK(mean_lateness_s(8, 0) == 0);
  CHECK(mean_lateness_s(1, 0.5) == 0);
}

TEST_CASE("ranks of a row wait for their row alone") {
  // Rows that meet nowhere else are groups of their own.
  CHECK(mean_lateness_s(8, 0.03, CommGroup::TensorRow, 4) == Approx(0.03 * 0.56419).epsilon(0.03));
  CHECK(mean_lateness_s(8, 0.03, CommGroup::TensorColumn, 4) ==
        Approx(0.03 * 1.02938).epsilon(0.03));
}

TEST_CASE("who computes beside a collective does not wait for a rank that is a little late") {
  const auto late_s = [](double beside_s) {
    std::vector<ChunkItem> items{work(1, 0.05), collective(CommGroup::Tensor, 0),
                                 work(beside_s, 0)};
    items[1].beside_next = true;
    items[1].hidden_s = 0.1;
    add_tensor_lateness(items, 2, 1);
    return items[1].late_s;
  };
  CHECK(late_s(1) == 0);
  CHECK(late_s(0.1) == Approx(0.05 * 0.56419).epsilon(0.25));  // 64 draws of one wait
}

TEST_CASE("lateness lengthens a step alike, folded and in full") {
  Question question;
  question.plan.tp = 4;
  question.plan.dp = 2;
  question.plan.sequence_parallel = GENERATE(false, true);
  question.plan.overlap.tensor = GENERATE(false, true);
  question.model = small_model(4);
  question.workload = {4, 1024, 0};
  const Cluster cluster = build(dgx_spec(1));
  const double even_s = simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
  const Simulated folded = simulate_plan(question, cluster, VaryingCosts());
  question.lowering.fidelity = Fidelity::Full;
  const double full_s = simulate_plan(question, cluster, VaryingCosts()).metrics.step_time_s;
  CHECK(folded.metrics.step_time_s > 1.02 * even_s);
  CHECK(folded.metrics.step_time_s == Approx(full_s).epsilon(1e-9));
}

}  // namespace rehearse
