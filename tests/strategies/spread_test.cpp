// Ordinary spread: which GPU a step waits for, folded as in full.
#include <cmath>

#include "tests/strategies/lowering_support.h"

namespace rehearse {
namespace {

constexpr double kDeviation = 0.015;

Question spread_question(const Plan& plan, int global_batch, int seed,
                         Fidelity fidelity = Fidelity::Folded) {
  Question question{.model = small_model(8), .plan = plan, .workload = {}, .lowering = {}};
  question.workload.global_batch = global_batch;
  question.workload.seq_len = 1024;
  question.lowering.fidelity = fidelity;
  question.lowering.spread = {kDeviation, seed};
  return question;
}

double step_s(const Question& question, const Cluster& cluster) {
  return simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
}

double parts_of(const DeviceMetrics& metrics) {
  double sum = metrics.busy_s() + metrics.bubble_s + metrics.waiting_s + metrics.host_s;
  for (const double seconds : metrics.exposed_s) sum += seconds;
  return sum;
}

double slowest_of(int gpus, int seed) {
  double slowest = 0;
  for (int gpu = 0; gpu < gpus; ++gpu)
    slowest = std::max(slowest, slowness({kDeviation, seed}, GpuId{gpu}));
  return slowest;
}

}  // namespace

TEST_CASE("A GPU alone takes its slowness times the usual step") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.dp = 1;
  Question question = spread_question(plan, 4, 1);
  const double spread_s = step_s(question, cluster);
  question.lowering.spread.deviation = 0;
  const double usual_s = step_s(question, cluster);
  CHECK(spread_s / usual_s == Approx(slowness({kDeviation, 1}, GpuId{0})).epsilon(1e-12));
}

TEST_CASE("Replicas without a pipeline wait for the slowest of all, folded as in full") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.dp = 8;
  plan.overlap.gradients = false;
  for (const int seed : {1, 2, 3}) {
    Question question = spread_question(plan, 16, seed);
    const Simulated folded = simulate_plan(question, cluster, FlatCosts());
    CHECK(folded.step.graph.devices.size() == 1);
    question.lowering.fidelity = Fidelity::Full;
    const Simulated full = simulate_plan(question, cluster, FlatCosts());
    CHECK(folded.metrics.step_time_s == Approx(full.metrics.step_time_s).epsilon(1e-9));
    CHECK(folded.metrics.load_balance == Approx(full.metrics.load_balance).epsilon(1e-9));
    // Nothing but computation is stretched.
    question.lowering.spread.deviation = 0;
    const Simulated usual = simulate_plan(question, cluster, FlatCosts());
    const double busy_s = usual.metrics.devices[0].busy_s();
    CHECK(full.metrics.step_time_s - usual.metrics.step_time_s ==
          Approx(busy_s * (slowest_of(8, seed) - 1)).epsilon(1e-6));
    // The one folded device tells the mean of the eight.
    double waiting_s = 0, work_s = 0;
    for (const DeviceMetrics& device : full.metrics.devices) {
      waiting_s += device.waiting_s / 8;
      work_s += device.busy_s() / 8;
    }
    CHECK(folded.metrics.devices[0].waiting_s == Approx(waiting_s).epsilon(1e-6));
    CHECK(folded.metrics.devices[0].busy_s() == Approx(work_s).epsilon(1e-9));
    CHECK(parts_of(folded.metrics.devices[0]) == Approx(folded.metrics.step_time_s).epsilon(1e-9));
  }
}

TEST_CASE("A tensor group goes at the pace of its slowest GPU, folded as in full") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.tp = 8;
  plan.dp = 1;
  plan.sequence_parallel = true;
  Question question = spread_question(plan, 4, 5);
  const Simulated folded = simulate_plan(question, cluster, FlatCosts());
  CHECK(1 / folded.step.graph.devices[0].speed == Approx(slowest_of(8, 5)).epsilon(1e-12));
  question.lowering.fidelity = Fidelity::Full;
  CHECK(folded.metrics.step_time_s == Approx(step_s(question, cluster)).epsilon(1e-4));
}

TEST_CASE("Folded pipelines of spread GPUs take the step of all of them to a third of a per cent") {
  const Cluster cluster = build(dgx_spec(4));
  struct Case {
    Plan plan;
    const char* what;
  };
  std::vector<Case> cases;
  Plan pipeline;
  pipeline.pp = 4;
  pipeline.tp = 2;
  pipeline.dp = 4;
  cases.push_back({pipeline, "one forward, one backward"});
  Plan interleaved = pipeline;
  interleaved.virtual_stages = 2;
  cases.push_back({interleaved, "interleaved"});
  Plan layer_wise = pipeline;
  layer_wise.schedule = ScheduleKind::LayerWise;
  cases.push_back({layer_wise, "layer-wise"});
  Plan sharded;
  sharded.dp = 32;
  sharded.zero = 3;
  cases.push_back({sharded, "sharded weights"});
  for (const Case& at : cases) {
    INFO(at.what);
    double folded_s = 0, full_s = 0;
    for (int seed = 1; seed <= 8; ++seed) {
      Question question = spread_question(at.plan, 32, seed);
      const double folded = step_s(question, cluster);
      question.lowering.fidelity = Fidelity::Full;
      const double full = step_s(question, cluster);
      CHECK(folded == Approx(full).epsilon(0.0033));
      folded_s += folded;
      full_s += full;
    }
    CHECK(folded_s == Approx(full_s).epsilon(0.0015));
  }
}

TEST_CASE("The same GPU is slow under every plan, and another seed draws another") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.dp = 8;
  const double first_s = step_s(spread_question(plan, 16, 1), cluster);
  CHECK(first_s == step_s(spread_question(plan, 16, 1), cluster));
  CHECK(first_s != step_s(spread_question(plan, 16, 2), cluster));
}

TEST_CASE("Without spread every device has the speed of its node") {
  ClusterSpec spec = dgx_spec(1);
  spec.groups.push_back({*find_node("dgx-h100"), 1, 0.9});
  const Cluster cluster = build(spec);
  Plan plan;
  plan.dp = 16;
  Question question = spread_question(plan, 16, 1);
  question.lowering.spread.deviation = 0;
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  REQUIRE(run.step.graph.devices.size() == 2);
  CHECK(run.step.graph.devices[0].speed == 1);
  CHECK(run.step.graph.devices[1].speed == 0.9);
  CHECK(run.step.graph.devices[1].mean_busy == 1);
}

}  // namespace rehearse
