#pragma once
#include <cstdint>
#include <vector>

#include "sim/metrics.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// Finds out what an idle device waited for, by walking back from what ended the wait along the
/// predecessors that were done last: at every date of the wait exactly one task of that chain
/// ran, and it is the reason (see `measure`).
class IdleReasons {
 public:
  IdleReasons(const StepGraph& graph, const SimulationRecord& record);

  /// Adds the wait of a device from `from_s` to `to_s` to its metrics; `task` is what ended it:
  /// its last predecessor, and so on. −1: nothing did.
  void explain(std::int32_t device, double from_s, double to_s, std::int32_t task,
               DeviceMetrics& into) const;

  bool takes_part(std::int32_t device, const Task& comm) const;

 private:
  const StepGraph& graph_;
  const SimulationRecord& record_;
  std::vector<std::int32_t> members_;  // StepGraph::group_devices, sorted within each group
};

}  // namespace rehearse
