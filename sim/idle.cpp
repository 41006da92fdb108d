#include "sim/idle.h"

#include <algorithm>
#include <map>
#include <numeric>
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
  index_predecessors();
}

void IdleReasons::index_predecessors() {
  const auto spans_replicas = [&](const Task& task) {
    if (task.kind != TaskKind::Comm || task.device < 0) return false;
    const Group& group = graph_.groups[task.device];
    const std::int32_t* const devices = graph_.group_devices.data() + group.first_device;
    for (std::int32_t i = 1; i < group.device_count; ++i)
      if (graph_.devices[devices[i]].replica != graph_.devices[devices[0]].replica) return true;
    return false;
  };
  std::vector<std::int32_t> number(graph_.tasks.size(), -1);
  for (std::size_t task = 0; task < graph_.tasks.size(); ++task)
    if (spans_replicas(graph_.tasks[task])) {
      number[task] = static_cast<std::int32_t>(between_replicas_.size());
      between_replicas_.push_back(static_cast<std::int32_t>(task));
    }
  first_predecessor_.assign(between_replicas_.size() + 1, 0);
  if (between_replicas_.empty()) return;
  for (const std::int32_t to : graph_.successor)
    if (number[to] >= 0) ++first_predecessor_[number[to] + 1];
  std::partial_sum(first_predecessor_.begin(), first_predecessor_.end(),
                   first_predecessor_.begin());
  predecessor_.resize(static_cast<std::size_t>(first_predecessor_.back()));
  std::vector<std::int32_t> next(first_predecessor_.begin(), first_predecessor_.end() - 1);
  for (std::size_t task = 0; task < graph_.tasks.size(); ++task)
    for (std::int32_t i = graph_.first_successor[task]; i < graph_.first_successor[task + 1]; ++i)
      if (const std::int32_t at = number[graph_.successor[i]]; at >= 0)
        predecessor_[next[at]++] = static_cast<std::int32_t>(task);
}

std::int32_t IdleReasons::predecessor(std::int32_t task, std::int32_t device) const {
  const std::int32_t last = record_.last_predecessor[task];
  const auto found = std::lower_bound(between_replicas_.begin(), between_replicas_.end(), task);
  if (last < 0 || found == between_replicas_.end() || *found != task) return last;
  const double tie_s = record_.finish_s[last] - 1e-12 * record_.end_s;
  const auto at = found - between_replicas_.begin();
  std::int32_t best = last;
  double best_s = -1;
  for (std::int32_t i = first_predecessor_[at]; i < first_predecessor_[at + 1]; ++i) {
    const Task& candidate = graph_.tasks[predecessor_[i]];
    const double finish_s = record_.finish_s[predecessor_[i]];
    const bool own = candidate.kind == TaskKind::Comm ? concerns(device, candidate)
                                                      : graph_.devices[candidate.device].replica ==
                                                            graph_.devices[device].replica;
    if (!own || finish_s < tie_s || finish_s <= best_s) continue;
    best = predecessor_[i];
    best_s = finish_s;
  }
  return best;
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
  for (; left_to_s > from_s && task != -1; task = predecessor(task, device)) {
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
