#include "planner/evaluate.h"

#include <algorithm>

#include "kernels/layer.h"
#include "plan/model_catalogue.h"
#include "tests/catch.h"
#include "topologies/hardware.h"

using namespace rehearse;

namespace {

Cluster dgx_cluster(int nodes, double speed_of_last = 1) {
  ClusterSpec spec;
  spec.groups.push_back({.node = *find_node("dgx-h100"), .count = nodes, .speed = 1});
  if (speed_of_last != 1) {
    spec.groups[0].count = nodes - 1;
    spec.groups.push_back({.node = *find_node("dgx-h100"), .count = 1, .speed = speed_of_last});
  }
  spec.fabric.kind = FabricKind::LeafSpine;
  Problems problems;
  Cluster cluster = Cluster::build(spec, problems);
  REQUIRE(problems.empty());
  return cluster;
}

Plan hybrid() {
  Plan plan;
  plan.name = "hybrid";
  plan.tp = 4;
  plan.pp = 2;
  plan.zero = 1;
  plan.sequence_parallel = true;
  return plan;
}

double parts_of(const DeviceMetrics& metrics) {
  double sum = metrics.busy_s() + metrics.bubble_s + metrics.waiting_s + metrics.host_s;
  for (double exposed_s : metrics.exposed_s) sum += exposed_s;
  return sum;
}

}  // namespace

TEST_CASE("the parts of every rank of an evaluated plan add up to its step") {
  const Cluster cluster = dgx_cluster(2);
  const Model& model = *find_model("gpt3-1.3b");
  const Fidelity fidelity = GENERATE(Fidelity::Folded, Fidelity::Replicas, Fidelity::Full);
  EvaluationOptions options;
  options.lowering.fidelity = fidelity;
  const PlanOutcome outcome = evaluate(model, {.global_batch = 16}, cluster, hybrid(), options);
  REQUIRE(outcome.faults.empty());
  const double step_s = outcome.metrics.step_time_s;
  REQUIRE(step_s > 0);
  int members = 0;
  for (std::size_t i = 0; i < outcome.devices.size(); ++i) {
    CHECK(parts_of(outcome.metrics.devices[i]) == Approx(step_s).epsilon(1e-9));
    members += outcome.devices[i].members;
  }
  CHECK(members == 16);
}

TEST_CASE("rates follow from the step: tokens per second, MFU and HFU") {
  const Cluster cluster = dgx_cluster(2);
  const Model& model = *find_model("gpt3-1.3b");
  const Workload workload{.global_batch = 16, .seq_len = 1024};
  Plan plan = hybrid();
  plan.recompute = GENERATE(Recompute::None, Recompute::Full);
  const PlanOutcome outcome = evaluate(model, workload, cluster, plan, {});
  REQUIRE(outcome.faults.empty());
  const double step_s = outcome.metrics.step_time_s, tokens = 16 * 1024;
  CHECK(outcome.tokens_per_s == Approx(tokens / step_s));
  CHECK(outcome.peak_flops == Approx(16 * find_gpu("h100-sxm-80gb")->bf16_flops));
  CHECK(outcome.mfu == Approx(training_flops(model, tokens, 1024, AttentionCount::CausalHalf) /
                              (step_s * outcome.peak_flops)));
  // Executed FLOPs counted anew from the operator lists of both stages: element-wise work beside
  // the matrix products makes them a little more than the model's, recomputation a third more.
  const double ratio = outcome.executed_flops / outcome.model_flops;
  if (plan.recompute == Recompute::None) {
    CHECK(ratio > 1.0);
    CHECK(ratio < 1.15);
  } else {
    CHECK(ratio > 1.25);
    CHECK(ratio < 1.45);
  }
  double evidence = 0;
  for (double share : outcome.evidence_share) evidence += share;
  CHECK(evidence == Approx(1));
}

TEST_CASE("executed FLOPs equal a count over the operator lists") {
  const Cluster cluster = dgx_cluster(2);
  const Model& model = *find_model("gpt3-1.3b");
  const Workload workload{.global_batch = 16, .seq_len = 1024};
  const PlanOutcome outcome = evaluate(model, workload, cluster, hybrid(), {});
  const LayerShape shape = layer_shape(model, outcome.plan, workload.seq_len);
  const auto flops_of = [](const std::vector<LayerItem>& items) {
    double flops = 0;
    for (const LayerItem& item : items)
      if (!item.is_collective) flops += item.op.flops;
    return flops;
  };
  const double micro_batch_flops =
      model.layers * (flops_of(layer_forward(shape)) + flops_of(layer_backward(shape))) +
      flops_of(embedding_forward(shape)) + flops_of(embedding_backward(shape)) +
      flops_of(head_forward(shape)) + flops_of(head_backward(shape));
  const double ranks_of_a_stage = 8, micro_batches = 8;
  // The optimizer's few FLOPs a parameter are the rest.
  CHECK(outcome.executed_flops ==
        Approx(micro_batch_flops * ranks_of_a_stage * micro_batches).epsilon(1e-3));
}

TEST_CASE(
    "a step's expected error is its framework's, its calibration's, or wider without evidence") {
  const Model model = *find_model("llama3-8b");
  const Workload workload{.global_batch = 8, .seq_len = 1024};
  EvaluationOptions options;
  options.framework.relative_error = 0.2;
  const auto of = [&](const Cluster& cluster, const Plan& plan) {
    return evaluate(model, workload, cluster, plan, options).expected_error;
  };
  Plan plan;
  plan.dp = 8;
  const Cluster known = dgx_cluster(1);
  CHECK(of(known, plan).relative_error == Approx(0.2));
  CHECK(of(known, plan).source.find("all frameworks") != std::string::npos);

  ClusterSpec spec = known.spec();
  spec.groups[0].node.gpu.compute_capability = 70;  // nothing was measured of its generation
  spec.groups[0].node.gpu.id = "other";
  Problems problems;
  const Cluster unknown = Cluster::build(spec, problems);
  CHECK(of(unknown, plan).relative_error > 0.3);
  CHECK(of(unknown, plan).source.find("data sheets") != std::string::npos);

  plan.framework = Framework::Megatron;
  const ExpectedError megatron = of(known, plan);
  CHECK(megatron.relative_error ==
        framework_costs(Framework::Megatron, plan, spec.groups[0].node.gpu).relative_error);
  CHECK(megatron.source.find("megatron") != std::string::npos);

  options.calibrated = true;
  CHECK(of(known, plan).relative_error == Approx(0.2));
  CHECK(of(known, plan).source.find("calibration") != std::string::npos);
}

TEST_CASE("a host that waits for each operator adds its time to every one") {
  Plan plan;
  plan.tp = 8;
  plan.dp = 1;
  const Model model = *find_model("llama3-8b");
  const auto step_s = [&](double launch_s, bool blocking) {
    EvaluationOptions options;
    options.framework.launch_s = launch_s;
    options.framework.blocking_launches = blocking;
    return evaluate(model, {.global_batch = 8, .seq_len = 1024}, dgx_cluster(1), plan, options)
        .metrics.step_time_s;
  };
  const double none_s = step_s(1e-12, true);
  const double some_s = step_s(50e-6, true), twice_s = step_s(100e-6, true);
  CHECK(some_s > none_s);
  CHECK(twice_s - some_s == Approx(some_s - none_s).epsilon(0.05));
  CHECK(step_s(50e-6, false) < some_s);
}

TEST_CASE("a plan that cannot be says why and is not simulated") {
  const Cluster cluster = dgx_cluster(1);
  Plan plan;
  plan.tp = 3;
  const PlanOutcome outcome = evaluate(*find_model("gpt2"), {.global_batch = 8}, cluster, plan, {});
  REQUIRE_FALSE(outcome.faults.empty());
  CHECK(outcome.metrics.step_time_s == 0);
  CHECK(outcome.stages.empty());
}

TEST_CASE("a precision that the GPU does not have is a fault of the plan") {
  ClusterSpec spec;
  NodeSpec node = *find_node("dgx-a100");
  spec.groups.push_back({.node = node, .count = 1});
  Problems problems;
  const Cluster cluster = Cluster::build(spec, problems);
  Plan plan;
  plan.precision = Precision::Fp8;
  const PlanOutcome outcome = evaluate(*find_model("gpt2"), {.global_batch = 8}, cluster, plan, {});
  REQUIRE(outcome.faults.size() == 1);
  CHECK(outcome.faults[0].pointer == "/precision");
  CHECK(outcome.faults[0].message.find("fp8") != std::string::npos);
}

TEST_CASE("a plan that does not fit is timed all the same, unless that is not wanted") {
  const Cluster cluster = dgx_cluster(1);
  const Model& model = *find_model("gpt3-13b");
  EvaluationOptions options;
  const PlanOutcome timed = evaluate(model, {.global_batch = 8}, cluster, Plan{}, options);
  CHECK_FALSE(timed.fits);
  CHECK(timed.metrics.step_time_s > 0);
  options.simulate_when_too_big = false;
  const PlanOutcome untimed = evaluate(model, {.global_batch = 8}, cluster, Plan{}, options);
  CHECK_FALSE(untimed.fits);
  CHECK(untimed.metrics.step_time_s == 0);
  CHECK(untimed.stages.size() == 1);
}

TEST_CASE("looking at a plan tells its memory as evaluating it does") {
  const Cluster cluster = dgx_cluster(2);
  const Model& model = *find_model("gpt3-1.3b");
  const PlanOutcome looked = inspect(model, {.global_batch = 16}, cluster, hybrid());
  const PlanOutcome evaluated = evaluate(model, {.global_batch = 16}, cluster, hybrid(), {});
  REQUIRE(looked.stages.size() == evaluated.stages.size());
  for (std::size_t i = 0; i < looked.stages.size(); ++i)
    CHECK(looked.stages[i].memory.total_bytes() == evaluated.stages[i].memory.total_bytes());
  CHECK(looked.fits == evaluated.fits);
  CHECK(looked.metrics.step_time_s == 0);
}

TEST_CASE("a slow node makes every step slower, and the others wait") {
  const Model& model = *find_model("gpt3-1.3b");
  Plan plan;
  plan.tp = 8;
  const PlanOutcome healthy = evaluate(model, {.global_batch = 16}, dgx_cluster(4), plan, {});
  const PlanOutcome slow = evaluate(model, {.global_batch = 16}, dgx_cluster(4, 0.5), plan, {});
  REQUIRE(healthy.faults.empty());
  REQUIRE(slow.faults.empty());
  CHECK(slow.metrics.step_time_s > 1.3 * healthy.metrics.step_time_s);
  CHECK(slow.metrics.load_balance > 1.2);
  CHECK(healthy.metrics.load_balance == Approx(1).epsilon(1e-6));
}

TEST_CASE("the same evaluation gives the same numbers to the last bit") {
  const Cluster cluster = dgx_cluster(2);
  const Model& model = *find_model("gpt3-1.3b");
  const PlanOutcome first = evaluate(model, {.global_batch = 16}, cluster, hybrid(), {});
  const PlanOutcome second = evaluate(model, {.global_batch = 16}, cluster, hybrid(), {});
  CHECK(first.metrics.step_time_s == second.metrics.step_time_s);
  REQUIRE(first.used_links.size() == second.used_links.size());
  for (std::size_t i = 0; i < first.used_links.size(); ++i)
    CHECK(first.used_links[i].name == second.used_links[i].name);
}

TEST_CASE("links are named with what they carried, the busiest first") {
  const Cluster cluster = dgx_cluster(2);
  const PlanOutcome outcome =
      evaluate(*find_model("gpt3-1.3b"), {.global_batch = 16}, cluster, hybrid(), {});
  REQUIRE_FALSE(outcome.used_links.empty());
  double previous = 1;
  for (const LinkReport& link : outcome.used_links) {
    CHECK(link.utilisation <= previous);
    CHECK(link.utilisation ==
          Approx(link.bytes / (link.bandwidth_bytes_per_s * outcome.metrics.step_time_s)));
    CHECK(link.name.find(link.kind) == 0);
    CHECK(link.bytes > 0);
    previous = link.utilisation;
  }
}

TEST_CASE("shares by speed and by measured speed are told with what they gain") {
  const Cluster cluster = dgx_cluster(4, 0.6);
  const Model& model = *find_model("gpt3-1.3b");
  Plan plan;
  plan.tp = 2;
  const Workload workload{.global_batch = 256, .tokens = 256 * 2048 * 1000.0};
  const EvaluationOptions options;
  const PlanOutcome even = evaluate(model, workload, cluster, plan, options);
  const auto said = [](const PlanOutcome& outcome) {
    for (const std::string& sentence : outcome.assumptions)
      if (sentence.find("replicas have") != std::string::npos) return sentence;
    return std::string();
  };
  CHECK(said(even).empty());
  plan.batch_split = BatchSplit::BySpeed;
  const PlanOutcome by_speed = evaluate(model, workload, cluster, plan, options);
  REQUIRE(by_speed.faults.empty());
  CHECK(by_speed.metrics.step_time_s < 0.85 * even.metrics.step_time_s);
  CHECK(by_speed.plan.replica_micro_batches.size() == 16);
  CHECK(said(by_speed).find("by their stated speed") != std::string::npos);
  CHECK(said(by_speed).find("16 micro-batches each") != std::string::npos);
  // The same in figures: the even way is the plan without shares, to the last bit.
  REQUIRE(by_speed.balance.size() == 1);
  REQUIRE(by_speed.balance[0].ways.size() == 2);
  CHECK(by_speed.balance[0].ways[0].step_time_s == even.metrics.step_time_s);
  CHECK(by_speed.balance[0].ways[1].step_time_s == by_speed.metrics.step_time_s);
  CHECK(by_speed.balance[0].ways[1].is_used);

  // Measured shares find out what nobody stated, after the first steps.
  plan.batch_split = BatchSplit::Even;
  plan.rebalance_every = 100;
  const PlanOutcome measured = evaluate(model, workload, cluster, plan, options);
  REQUIRE(measured.faults.empty());
  CHECK(measured.metrics.step_time_s == Approx(by_speed.metrics.step_time_s).epsilon(1e-9));
  CHECK(said(measured).find("as in the first 100 steps") != std::string::npos);
  CHECK(said(measured).find("of the run's 1000 steps") != std::string::npos);
  REQUIRE(measured.balance.size() == 1);
  const std::vector<BalanceWay>& ways = measured.balance[0].ways;
  REQUIRE(ways.size() == 4);  // even, by stated speed, the plan's, and the mean of the run
  CHECK(ways[1].step_time_s == by_speed.metrics.step_time_s);
  CHECK(ways[2].is_used);
  CHECK(ways[3].step_time_s ==
        Approx(0.9 * ways[2].step_time_s + 0.1 * ways[0].step_time_s).epsilon(1e-12));
}

TEST_CASE("a balanced split of layers is told with what it gains over the even one") {
  const Cluster cluster = dgx_cluster(2, 1);
  Model model = *find_model("gpt3-1.3b");
  model.layers = 18;
  Plan plan;
  plan.tp = 2;
  plan.pp = 4;
  const Workload workload{.global_batch = 64};
  const PlanOutcome even = evaluate(model, workload, cluster, plan, {});
  CHECK(even.balance.empty());
  plan.balanced_split = true;
  const PlanOutcome balanced = evaluate(model, workload, cluster, plan, {});
  REQUIRE(balanced.balance.size() == 1);
  CHECK(balanced.balance[0].ways[0].step_time_s == even.metrics.step_time_s);
  CHECK(balanced.balance[0].ways[1].step_time_s == balanced.metrics.step_time_s);
  CHECK(balanced.metrics.step_time_s <= even.metrics.step_time_s);
}

TEST_CASE("fp8 that tensor cores scale by 32 needs a GPU that has them") {
  Plan plan;
  plan.tp = 8;
  plan.precision = Precision::Fp8;
  plan.fp8.scaling = Fp8Scaling::Mx;
  const Workload workload{.global_batch = 8};
  const PlanOutcome hopper =
      evaluate(*find_model("llama3-8b"), workload, dgx_cluster(1, 1), plan, {});
  REQUIRE(hopper.faults.size() == 1);
  CHECK(hopper.faults[0].pointer == "/fp8/scaling");
  plan.fp8.scaling = Fp8Scaling::Block;
  CHECK(evaluate(*find_model("llama3-8b"), workload, dgx_cluster(1, 1), plan, {}).faults.empty());
}
