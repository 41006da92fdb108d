#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "plan/timeline.h"
#include "plan/workload.h"
#include "planner/balance.h"
#include "planner/evidence.h"
#include "planner/framework.h"
#include "sim/metrics.h"
#include "strategies/check_plan.h"
#include "strategies/lower.h"
#include "strategies/memory.h"
#include "topologies/cluster.h"

namespace rehearse {

struct EvaluationOptions {
  LoweringOptions lowering;
  bool keep_timeline = false;
  bool simulate_when_too_big = true;       ///< also time plans that do not fit in memory
  bool compare_balance = true;             ///< also time what balanced shares are compared with
  FrameworkCosts framework;                ///< what a step takes beside its kernels
  bool calibrated = false;                 ///< factors and interval are of the user's own runs
  std::vector<std::string> profile_files;  ///< profile/1: price the GPUs whose id they have
};

/// Where the program's own time went, for --verbose.
struct PhaseTimes {
  double pricing_s = 0, lowering_s = 0, simulation_s = 0;
};

/// Where the time of one stage's slowest rank went and what its ranks hold in memory.
struct StageReport {
  int stage = 0;
  DeviceMetrics time;
  StageMemory memory;
  double memory_capacity_bytes = 0;  ///< of the smallest GPU of the stage
};

/// A link for reports: its place in the cluster has become a name.
struct LinkReport {
  std::string name;      ///< "nic-up gpu 12"
  std::string kind;      ///< "nic-up"
  std::int32_t members;  ///< links that carry the same
  double bandwidth_bytes_per_s = 0, bytes = 0, utilisation = 0;
};

/// What one plan does with one model on one cluster.
struct PlanOutcome {
  Plan plan;                      ///< resolved
  std::vector<PlanFault> faults;  ///< not empty: the plan cannot be, and nothing else is filled
  bool fits = true;               ///< every stage's memory ≤ its GPUs'
  StepMetrics metrics;
  std::vector<StageReport> stages;
  std::vector<Device> devices;         ///< of the simulated graph, parallel to metrics.devices
  std::vector<SimLink> links;          ///< of the simulated graph
  std::vector<LinkReport> used_links;  ///< those that carried anything, the busiest first
  Timeline timeline;                   ///< if kept
  double updates_per_s = 0;            ///< of the weights; a parameter server's pushes one by one
  double mean_staleness = 0;           ///< updates by others between a replica's pull and its push
  double tokens_per_s = 0;
  /// Model FLOPs utilisation: training_flops (causal half) / (step time · Σ peak of the plan's
  /// precision). Recomputation does not count.
  double mfu = 0;
  /// Hardware utilisation: FLOPs of the operators really executed, recomputation included.
  double hfu = 0;
  double model_flops = 0, executed_flops = 0, peak_flops = 0;
  double evidence_share[kCostSourceCount] = {};  ///< compute time by CostSource
  PriceEvidence prices;                          ///< how sure the compute time is
  ExpectedError expected_error;                  ///< of the step time
  std::vector<BalanceComparison> balance;        ///< where the plan balances something
  std::vector<std::string>
      notes;  ///< what its framework does not do, and is simulated all the same
  std::vector<std::string> assumptions;
  PhaseTimes phases;
};

/// Checks the plan and sums up its memory, without simulating: fills plan, faults, fits and
/// stages (without their times).
PlanOutcome inspect(const Model& model, const Workload& workload, const Cluster& cluster,
                    const Plan& plan);

/// Checks, lowers, simulates and measures one plan. One simulation per process at a time.
PlanOutcome evaluate(const Model& model, const Workload& workload, const Cluster& cluster,
                     const Plan& plan, const EvaluationOptions& options);

}  // namespace rehearse
