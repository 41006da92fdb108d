#pragma once
#include "sim/metrics.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// How fast replicas that do not wait for each other update shared weights.
struct UpdateRate {
  double updates_per_s = 0;
  double mean_staleness = 0;             ///< updates by others since a replica's own last one
  std::vector<double> replica_period_s;  ///< of one step of each replica
};

/// From the dates at which each replica ended its steps, between the first end of step `warm_up`
/// and the first end of a last one: there all replicas are at work. A step that is cut by an end
/// of this window counts in part. REQUIRES: at least two steps after the warm-up.
UpdateRate update_rate(const StepGraph& graph, const SimulationRecord& record, int warm_up = 0);

/// Restates the metrics of replicas that do not wait for each other: a step is as many updates as
/// there are replicas, and each device's parts are those of its own pace, brought to that time.
void restate_for_rate(const StepGraph& graph, const UpdateRate& rate, StepMetrics& metrics);

}  // namespace rehearse
