#include "sim/idle.h"

#include <algorithm>

namespace rehearse {

IdleReasons::IdleReasons(const StepGraph& graph, const SimulationRecord& record)
    : graph_(graph), record_(record), members_(graph.group_devices) {
  for (const Group& group : graph.groups) {
    const auto first = members_.begin() + group.first_device;
    std::sort(first, first + group.device_count);
  }
}

bool IdleReasons::takes_part(std::int32_t device, const Task& comm) const {
  if (comm.device < 0) return false;
  const Group& group = graph_.groups[comm.device];
  const auto first = members_.begin() + group.first_device;
  return std::binary_search(first, first + group.device_count, device);
}

void IdleReasons::explain(std::int32_t device, double from_s, double to_s, std::int32_t task,
                          DeviceMetrics& into) const {
  const std::int32_t stage = graph_.devices[device].stage;
  double left_to_s = to_s;
  // A predecessor of the step before ended at or before the step's begin: nothing is left then.
  for (; task >= 0 && left_to_s > from_s; task = record_.last_predecessor[task]) {
    const double begin_s = std::max(from_s, record_.start_s[task]);
    if (begin_s >= left_to_s) continue;
    const double wait_s = left_to_s - begin_s;
    left_to_s = begin_s;
    const Task& reason = graph_.tasks[task];
    if (reason.kind == TaskKind::Comm && takes_part(device, reason)) {
      into.exposed_s[static_cast<std::size_t>(reason.comm)] += wait_s;
      continue;
    }
    bool same_stage = false;
    if (reason.kind == TaskKind::Compute) {
      same_stage = graph_.devices[reason.device].stage == stage;
    } else if (reason.device >= 0) {
      const Group& group = graph_.groups[reason.device];
      for (std::int32_t i = 0; i < group.device_count && !same_stage; ++i)
        same_stage = graph_.devices[graph_.group_devices[group.first_device + i]].stage == stage;
    }
    (same_stage ? into.waiting_s : into.bubble_s) += wait_s;
  }
  if (left_to_s > from_s) into.waiting_s += left_to_s - from_s;
}

}  // namespace rehearse
