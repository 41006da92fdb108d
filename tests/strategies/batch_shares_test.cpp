// Batches shared out by speed: who gets how many micro-batches, and that nobody waits then.
#include "strategies/batch_shares.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "strategies/layer_split.h"
#include "tests/strategies/lowering_support.h"

namespace rehearse {
namespace {

double slowest_s(const std::vector<ReplicaPace>& paces, const std::vector<int>& shares) {
  double slowest = 0;
  for (std::size_t i = 0; i < paces.size(); ++i)
    slowest = std::max(slowest, paces[i].step_s(shares[i]));
  return slowest;
}

/// The best of all ways to share out, by trying them.
double best_of_all(const std::vector<ReplicaPace>& paces, int micro_batches,
                   std::vector<int>& shares) {
  if (shares.size() + 1 == paces.size()) {
    shares.push_back(micro_batches);
    const double seconds = slowest_s(paces, shares);
    shares.pop_back();
    return seconds;
  }
  double best = std::numeric_limits<double>::infinity();
  const int others = static_cast<int>(paces.size() - shares.size()) - 1;
  for (int own = 1; own <= micro_batches - others; ++own) {
    shares.push_back(own);
    best = std::min(best, best_of_all(paces, micro_batches - own, shares));
    shares.pop_back();
  }
  return best;
}

/// A node at full speed, and another at a part of it.
ClusterSpec two_speeds(double speed) {
  ClusterSpec spec = dgx_spec(1);
  spec.groups.push_back({*find_node("dgx-h100"), 1, speed});
  return spec;
}

Question shares_question(const Plan& plan, int global_batch) {
  Question question{.model = small_model(4), .plan = plan, .workload = {}, .lowering = {}};
  question.workload.global_batch = global_batch;
  question.workload.seq_len = 1024;
  return question;
}

std::vector<int> shares_on(const Question& question, const Cluster& cluster) {
  const FlatCosts costs;
  const std::vector<const CostModel*> models(cluster.spec().groups.size(), &costs);
  std::vector<ReplicaPace> paces;
  for (const auto& stages : replica_stage_times(question.model, question.plan, question.workload,
                                                cluster, models, question.lowering.spread))
    paces.push_back(replica_pace(stages, question.plan));
  return batch_shares(paces, question.workload.global_batch / question.plan.micro_batch);
}

bool refuses(const Question& question, const char* pointer, int gpus) {
  const auto faults = plan_faults(question.plan, question.model, question.workload, gpus);
  return std::any_of(faults.begin(), faults.end(),
                     [&](const PlanFault& fault) { return fault.pointer == pointer; });
}

}  // namespace

TEST_CASE("Replicas of two speeds, 2 to 1, get shares of 2 to 1") {
  const std::vector<ReplicaPace> paces{{1, 0}, {2, 0}, {1, 0}, {2, 0}};
  CHECK(batch_shares(paces, 12) == std::vector<int>{4, 2, 4, 2});
  CHECK(batch_shares(paces, 4) == std::vector<int>{1, 1, 1, 1});
  CHECK(batch_shares({{1, 0}, {1, 0}, {1, 0}}, 8) == std::vector<int>{3, 3, 2});
}

TEST_CASE("Shares are the best of all ways to share out") {
  const std::vector<std::vector<ReplicaPace>> cases{
      {{1, 0}, {1.7, 0}, {0.6, 0}},
      {{1, 3}, {2, 0}, {1.5, 1}},
      {{1, 0}, {100, 0}},
      {{0.3, 0.1}, {0.5, 0.2}, {0.7, 0}, {0.2, 2}},
  };
  for (const auto& paces : cases)
    for (int count = static_cast<int>(paces.size()); count < 16; ++count) {
      std::vector<int> tried;
      const std::vector<int> shares = batch_shares(paces, count);
      CHECK(std::accumulate(shares.begin(), shares.end(), 0) == count);
      CHECK(slowest_s(paces, shares) == Approx(best_of_all(paces, count, tried)).epsilon(1e-12));
    }
}

TEST_CASE("A pipeline's replica goes at the pace of its slowest stage") {
  Plan plan;
  plan.pp = 3;
  const ReplicaPace pace = replica_pace({1, 3, 2}, plan);
  CHECK(pace.micro_batch_s == 3);
  CHECK(pace.step_s(10) == 33);  // ten at the slowest, after the first came through the others
  plan.schedule = ScheduleKind::LayerWise;
  CHECK(replica_pace({1, 3, 2}, plan).step_s(10) == 60);
}

TEST_CASE("With shares of 2 to 1 for speeds of 2 to 1 nobody waits for computations") {
  const Cluster cluster = build(two_speeds(0.5));
  Plan plan;
  plan.dp = 16;
  plan.overlap.gradients = false;
  Question question = shares_question(plan, 96);
  const Simulated even = simulate_plan(question, cluster, FlatCosts());
  const std::vector<int> shares = shares_on(question, cluster);
  for (int replica = 0; replica < 16; ++replica)
    CHECK(shares[static_cast<std::size_t>(replica)] == (replica < 8 ? 8 : 4));
  question.plan.replica_micro_batches = shares;
  const Simulated by_speed = simulate_plan(question, cluster, FlatCosts());
  CHECK(by_speed.step.graph.devices.size() == 2);
  // Nobody waits but for the slow nodes' update, which takes as long as before.
  const double update_s =
      by_speed.metrics.devices[1].work_s[static_cast<std::size_t>(WorkKind::Optimizer)];
  for (const DeviceMetrics& device : by_speed.metrics.devices) CHECK(device.waiting_s < update_s);
  CHECK(even.metrics.devices[0].waiting_s > 0.2 * even.metrics.step_time_s);
  CHECK(even.step.executed_flops == Approx(by_speed.step.executed_flops).epsilon(1e-9));
  // Six micro-batches at half the speed against eight at full speed.
  const double micro_batch_s =
      even.metrics.devices[0].busy_s() - by_speed.metrics.devices[0].busy_s();
  CHECK(even.metrics.step_time_s - by_speed.metrics.step_time_s ==
        Approx(-micro_batch_s / 2 * (12 - 8)).epsilon(1e-6));
}

TEST_CASE("Uneven shares take the same step folded, by replicas and in full") {
  const Cluster cluster = build(two_speeds(0.7));
  for (const int stages : {1, 2}) {
    Plan plan;
    plan.pp = stages;
    plan.tp = 2;
    plan.dp = 16 / 2 / stages;
    plan.zero = 1;
    plan.rank_order = {Axis::Tensor, Axis::Context, Axis::Pipeline, Axis::Data};
    Question question = shares_question(plan, 40);
    question.plan.replica_micro_batches = shares_on(question, cluster);
    const double folded_s = simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
    for (const Fidelity fidelity : {Fidelity::Replicas, Fidelity::Full}) {
      question.lowering.fidelity = fidelity;
      CHECK(
          folded_s ==
          Approx(simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s).epsilon(1e-9));
    }
  }
}

TEST_CASE("Shares follow measured speeds, spread and all") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.dp = 8;
  Question question = shares_question(plan, 256);
  CHECK(shares_on(question, cluster) == std::vector<int>(8, 32));
  question.lowering.spread = {0.1, 3};
  const std::vector<int> shares = shares_on(question, cluster);
  int fastest = 0, slowest = 0;
  for (int gpu = 1; gpu < 8; ++gpu) {
    if (slowness({0.1, 3}, GpuId{gpu}) < slowness({0.1, 3}, GpuId{fastest})) fastest = gpu;
    if (slowness({0.1, 3}, GpuId{gpu}) > slowness({0.1, 3}, GpuId{slowest})) slowest = gpu;
  }
  CHECK(shares[static_cast<std::size_t>(fastest)] ==
        *std::max_element(shares.begin(), shares.end()));
  CHECK(shares[static_cast<std::size_t>(slowest)] ==
        *std::min_element(shares.begin(), shares.end()));
  // They are better than equal ones when simulated with the same GPUs.
  const double even_s = simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
  question.plan.replica_micro_batches = shares;
  CHECK(simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s < 0.95 * even_s);
}

TEST_CASE("Batches that cannot be shared out unevenly are refused with the reason") {
  Plan plan;
  plan.dp = 4;
  Question question = shares_question(plan, 16);
  question.plan.replica_micro_batches = {4, 4, 4, 4};
  CHECK_FALSE(refuses(question, "/replica_micro_batches", 4));
  question.plan.replica_micro_batches = {4, 4, 4, 5};
  CHECK(refuses(question, "/replica_micro_batches", 4));
  question.plan.replica_micro_batches = {8, 8};
  CHECK(refuses(question, "/replica_micro_batches", 4));
  question.plan.replica_micro_batches = {16, 0, 0, 0};
  CHECK(refuses(question, "/replica_micro_batches", 4));
  question.plan.replica_micro_batches.clear();
  question.plan.batch_split = BatchSplit::BySpeed;
  CHECK_FALSE(refuses(question, "/batch_split", 4));
  question.plan.zero = 3;
  CHECK(refuses(question, "/batch_split", 4));
  question.plan.zero = 0;
  question.plan.batch_split = BatchSplit::Even;
  question.plan.rebalance_every = 100;
  CHECK_FALSE(refuses(question, "/rebalance_every", 4));
  question.workload.global_batch = 18;  // equal shares there are none to begin with
  CHECK(refuses(question, "/micro_batch", 4));
}

}  // namespace rehearse
