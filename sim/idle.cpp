#include "sim/idle.h"

#include <algorithm>
#include <map>
#include <utility>

namespace rehearse {

IdleReasons::IdleReasons(const StepGraph& graph, const SimulationRecord& record)
    : graph_(graph), record_(record), members_(graph.group_devices) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> first_of;
  for (std::size_t i = 0; i < graph.devices.size(); ++i)
    tensor_group_.push_back(first_of
                                .try_emplace({graph.devices[i].stage, graph.devices[i].replica},
                                             static_cast<std::int32_t>(i))
                                .first->second);
  for (std::int32_t& device : members_) device = tensor_group_[device];
  for (const Group& group : graph.groups) {
    const auto first = members_.begin() + group.first_device;
    std::sort(first, first + group.device_count);
  }
}

bool IdleReasons::concerns(std::int32_t device, const Task& comm) const {
  if (comm.device < 0) return false;
  const Group& group = graph_.groups[comm.device];
  const auto first = members_.begin() + group.first_device;
  return std::binary_search(first, first + group.device_count, tensor_group_[device]);
}

bool IdleReasons::on_stage(const Task& task, std::int32_t stage) const {
  if (task.kind == TaskKind::Compute) return graph_.devices[task.device].stage == stage;
  if (task.device < 0) return false;
  const Group& group = graph_.groups[task.device];
  for (std::int32_t i = 0; i < group.device_count; ++i)
    if (graph_.devices[graph_.group_devices[group.first_device + i]].stage == stage) return true;
  return false;
}

double IdleReasons::explain(std::int32_t device, double from_s, double to_s, std::int32_t task,
                            double shift_s, DeviceMetrics& into) const {
  double left_to_s = to_s;
  for (; left_to_s > from_s && task != -1; task = record_.last_predecessor[task]) {
    if (task < -1) {
      // Of the step before the reported one nothing is recorded, and nothing lies in the window.
      if (shift_s == 0) return left_to_s;
      task = -2 - task;
      shift_s = 0;
    }
    const double begin_s = std::max(from_s, record_.start_s[task] + shift_s);
    if (begin_s >= left_to_s) continue;
    const double wait_s = left_to_s - begin_s;
    left_to_s = begin_s;
    const Task& reason = graph_.tasks[task];
    if (reason.kind == TaskKind::Comm && concerns(device, reason))
      into.exposed_s[static_cast<std::size_t>(reason.comm)] += wait_s;
    else if (on_stage(reason, graph_.devices[device].stage))
      into.waiting_s += wait_s;
    else
      into.bubble_s += wait_s;
  }
  return left_to_s;
}

}  // namespace rehearse
