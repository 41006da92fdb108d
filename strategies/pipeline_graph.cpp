#include <cstddef>

#include "plan/ensure.h"
#include "strategies/lower.h"

namespace rehearse {
namespace {

double action_seconds(const PipelineTimes& times, const Action& action, std::size_t stage) {
  switch (action.kind) {
    case ActionKind::Forward:
      return times.forward_s[stage];
    case ActionKind::InputGradient:
      return times.input_gradient_s[stage];
    case ActionKind::WeightGradient:
      return times.weight_gradient_s[stage];
    case ActionKind::Backward:
      return times.input_gradient_s[stage] + times.weight_gradient_s[stage];
  }
  return 0;
}

/// Task ids by (stage, backward?, chunk, micro-batch).
class TaskTable {
 public:
  explicit TaskTable(const Schedule& schedule)
      : chunks_(schedule.chunks),
        micro_batches_(schedule.micro_batches),
        ids_(static_cast<std::size_t>(schedule.stages * 2 * schedule.chunks *
                                      schedule.micro_batches),
             -1) {}
  std::int32_t& at(int stage, bool backward, int chunk, int micro_batch) {
    return ids_[static_cast<std::size_t>(
        ((stage * 2 + backward) * chunks_ + chunk) * micro_batches_ + micro_batch)];
  }

 private:
  int chunks_, micro_batches_;
  std::vector<std::int32_t> ids_;
};

/// The block of joined actions that a task belongs to, by its ends: what it needs must be there
/// before the first, and its result is there after the last.
struct JoinedTasks {
  std::int32_t first, last;
};

std::int32_t add_hop(StepGraph& graph, EdgeList& edges, std::int32_t from, std::int32_t to,
                     const Action& action, double hop_s) {
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Pipeline;
  task.stream =
      action.kind == ActionKind::Forward ? Stream::PipelineForward : Stream::PipelineBackward;
  task.overlaps = true;
  task.chunk = static_cast<std::int16_t>(action.chunk);
  task.micro_batch = action.micro_batch;
  task.device = static_cast<std::int32_t>(graph.groups.size());
  task.label = action.kind == ActionKind::Forward ? 3 : 4;
  task.seconds = hop_s;
  graph.groups.push_back({static_cast<std::int32_t>(graph.group_devices.size()), 2});
  graph.group_devices.push_back(graph.tasks[static_cast<std::size_t>(from)].device);
  graph.group_devices.push_back(graph.tasks[static_cast<std::size_t>(to)].device);
  graph.tasks.push_back(task);
  const auto id = static_cast<std::int32_t>(graph.tasks.size() - 1);
  edges.add(from, id);
  edges.add(id, to);
  return id;
}

}  // namespace

StepGraph pipeline_graph(const Schedule& schedule, const PipelineTimes& times) {
  StepGraph graph;
  EdgeList edges;
  graph.labels = {"forward", "backward", "weight gradient", "send activations", "send gradients"};
  TaskTable table(schedule);
  std::vector<JoinedTasks> joined;
  const int last_piece = piece_count(schedule) - 1;
  for (int s = 0; s < schedule.stages; ++s) {
    Device device;
    device.representative = Rank{s};
    device.stage = s;
    graph.devices.push_back(device);
    std::int32_t before = -1, first = -1, joins = -1;
    for (const Action& action : schedule.actions[static_cast<std::size_t>(s)]) {
      SegmentItem item;
      item.seconds = action_seconds(times, action, static_cast<std::size_t>(s));
      item.label = action.kind == ActionKind::Forward          ? 0
                   : action.kind == ActionKind::WeightGradient ? 2
                                                               : 1;
      Task task;
      task.device = s;
      task.chunk = static_cast<std::int16_t>(action.chunk);
      task.micro_batch = action.micro_batch;
      task.label = item.label;
      task.payload = add_segment(graph, {item}, 0);
      graph.tasks.push_back(task);
      const auto id = static_cast<std::int32_t>(graph.tasks.size() - 1);
      if (before >= 0) edges.add(before, id);
      if (first < 0) first = id;
      before = id;
      if (joins < 0) joins = id;
      joined.push_back({joins, id});
      if (!action.joined) {
        for (std::int32_t i = joins; i <= id; ++i) joined[static_cast<std::size_t>(i)].last = id;
        joins = -1;
      }
      if (action.kind != ActionKind::WeightGradient)
        table.at(s, action.kind != ActionKind::Forward, action.chunk, action.micro_batch) = id;
    }
    if (before >= 0) edges.add_wrap(before, first);
  }
  for (int s = 0; s < schedule.stages; ++s)
    for (const Action& action : schedule.actions[static_cast<std::size_t>(s)]) {
      if (action.kind == ActionKind::WeightGradient) continue;
      const bool backward = action.kind != ActionKind::Forward;
      const int piece = piece_of(schedule, s, action.chunk);
      const int next = backward ? piece - 1 : piece + 1;
      std::int32_t from = table.at(s, backward, action.chunk, action.micro_batch);
      if (next < 0 || next > last_piece) continue;
      const ChunkPlace place = place_of(schedule, next, action.micro_batch);
      std::int32_t to = table.at(place.stage, backward, place.chunk, action.micro_batch);
      ensure(to >= 0, "a checked schedule has a receiver for every transfer");
      from = joined[static_cast<std::size_t>(from)].last;
      to = joined[static_cast<std::size_t>(to)].first;
      if (times.hop_s > 0 && place.stage != s)
        add_hop(graph, edges, from, to, action, times.hop_s);
      else
        edges.add(from, to);
    }
  edges.finish(graph);
  return graph;
}

}  // namespace rehearse
