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
  /// its last predecessor, and so on, in the terms of SimulationRecord::last_predecessor.
  /// `shift_s`: 0 in the reported step, its length in the one after it, whose tasks are taken to
  /// run as this one's did. Returns the date up to which nothing explains the wait.
  double explain(std::int32_t device, double from_s, double to_s, std::int32_t task, double shift_s,
                 DeviceMetrics& into) const;

  /// True for a transfer of the device's own tensor group: of the device, or of another tensor
  /// rank of its stage and replica. The group goes on together, so it is one rank's wait as much
  /// as the other's, and a folded group is told the same as an unfolded one.
  bool concerns(std::int32_t device, const Task& comm) const;

 private:
  bool on_stage(const Task& task, std::int32_t stage) const;
  void index_predecessors();
  /// What to look at after a task on the way back: its last predecessor, or one of the device's
  /// own replica that was done at the same moment. Replicas in step do not hold each other up;
  /// without this, a tie at a collective between them would tell that they do.
  std::int32_t predecessor(std::int32_t task, std::int32_t device) const;

  const StepGraph& graph_;
  const SimulationRecord& record_;
  std::vector<std::int32_t> tensor_group_;  // by device: the first device of its tensor group
  /// Predecessors of the collectives between replicas: those of the i-th of `between_replicas_`
  /// are predecessor_[first_predecessor_[i] … first_predecessor_[i+1]).
  std::vector<std::int32_t> between_replicas_, first_predecessor_, predecessor_;
  std::vector<std::int32_t> members_;  // tensor groups of StepGraph::group_devices, sorted
};

}  // namespace rehearse
