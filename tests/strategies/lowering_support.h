#pragma once
// What the tests of lowering share: a cost model with round numbers, small models and clusters.
#include <memory>
#include <string>

#include "kernels/cost_model.h"
#include "kernels/layer.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"
#include "sim/metrics.h"
#include "sim/simulate.h"
#include "strategies/check_plan.h"
#include "strategies/lower.h"
#include "tests/catch.h"
#include "topologies/cluster.h"

namespace rehearse {

/// seconds = FLOPs / 300 TFLOP/s + bytes / 1.5 TB/s: nothing of a real GPU, but exact to foresee.
class FlatCosts : public CostModel {
 public:
  explicit FlatCosts(double launch_s = 0) : launch_s_(launch_s) {}
  Cost cost(const Operator& op) const override {
    return {op.flops / 300e12 + op.bytes / 1.5e12, CostSource::DataSheet, 0};
  }
  double launch_s() const override { return launch_s_; }
  std::string description() const override { return "flat costs for tests"; }

 private:
  double launch_s_;
};

inline Model small_model(int layers) {
  Model model;
  model.name = "small";
  model.layers = layers;
  model.hidden = 1024;
  model.heads = model.kv_heads = 16;
  model.head_dim = 64;
  model.ffn = 4096;
  model.vocab = 51200;
  model.max_seq_len = 1024;
  return model;
}

inline ClusterSpec dgx_spec(int nodes, FabricKind kind = FabricKind::SingleSwitch) {
  ClusterSpec spec;
  spec.groups.push_back({*find_node("dgx-h100"), nodes, 1});
  spec.fabric.kind = kind;
  return spec;
}

inline Cluster build(const ClusterSpec& spec) {
  Problems problems;
  Cluster cluster = Cluster::build(spec, problems);
  INFO(problems.text());
  REQUIRE(problems.empty());
  return cluster;
}

struct Simulated {
  LoweredStep step;
  SimulationRecord record;
  StepMetrics metrics;
  const DeviceMetrics& of(Rank rank) const {
    return metrics.devices[static_cast<std::size_t>(
        step.device_of_rank[static_cast<std::size_t>(rank.value)])];
  }
};

struct Question {
  Model model;
  Plan plan;  ///< dp may be open
  Workload workload;
  LoweringOptions lowering;
  SimulationOptions simulation;
  bool interfere = false;
};

inline Simulated simulate_plan(const Question& question, const Cluster& cluster,
                               const CostModel& costs) {
  const Plan plan = resolve(question.plan, world_size(question.plan) > 0 ? world_size(question.plan)
                                                                         : cluster.gpu_count());
  for (const PlanFault& fault :
       plan_faults(plan, question.model, question.workload, world_size(plan)))
    FAIL(fault.pointer << ": " << fault.message);
  const Schedule schedule =
      make_schedule(plan.schedule, plan.pp, plan.virtual_stages,
                    static_cast<int>(micro_batches(plan, question.workload.global_batch)));
  std::vector<const CostModel*> models(cluster.spec().groups.size(), &costs);
  Simulated out;
  out.step = lower({question.model, plan, question.workload, cluster, schedule, models},
                   question.lowering);
  SimulationOptions options = question.simulation;
  if (question.interfere) options.interference.compute_share = out.step.compute_share;
  out.record = simulate(out.step.graph, options);
  out.metrics = measure(out.step.graph, out.record);
  return out;
}

}  // namespace rehearse
