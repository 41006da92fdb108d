#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strategies/step_graph.h"

namespace rehearse {

/// Makes step graphs by hand. Compute tasks of a device are chained in the order they are made,
/// and `finish` leads each chain's end to its begin in the next step.
class GraphBuilder {
 public:
  std::int32_t device(std::int32_t stage = 0, double speed = 1, std::int32_t replica = 0) {
    const auto index = static_cast<std::int32_t>(graph_.devices.size());
    graph_.devices.push_back({Rank{index}, 1, stage, replica, speed});
    first_.push_back(-1);
    last_.push_back(-1);
    return index;
  }

  std::int32_t link(double bandwidth_bytes_per_s) {
    graph_.links.push_back({bandwidth_bytes_per_s, 1, LinkId{0}});
    return static_cast<std::int32_t>(graph_.links.size()) - 1;
  }

  std::int32_t label(const std::string& name) {
    graph_.labels.push_back(name);
    return static_cast<std::int32_t>(graph_.labels.size()) - 1;
  }

  std::int32_t segment(const std::vector<SegmentItem>& items, double launch_s = 0) {
    return add_segment(graph_, items, launch_s);
  }

  /// A compute task of a segment, after the device's last.
  std::int32_t compute_segment(std::int32_t device, std::int32_t segment) {
    Task task;
    task.device = device;
    task.payload = segment;
    const std::int32_t index = add(task);
    if (last_[device] >= 0) edge(last_[device], index);
    if (first_[device] < 0) first_[device] = index;
    last_[device] = index;
    return index;
  }
  std::int32_t compute(std::int32_t device, double seconds) {
    return compute_segment(device, segment({SegmentItem{.seconds = seconds}}));
  }

  struct FlowSpec {
    double bytes_factor = 1;
    std::vector<Hop> hops;
  };
  std::int32_t pattern(const std::vector<FlowSpec>& flows) {
    Pattern pattern{static_cast<std::int32_t>(graph_.flows.size()),
                    static_cast<std::int32_t>(flows.size())};
    for (const FlowSpec& flow : flows) {
      graph_.flows.push_back({flow.bytes_factor, static_cast<std::int32_t>(graph_.hops.size()),
                              static_cast<std::int32_t>(flow.hops.size())});
      graph_.hops.insert(graph_.hops.end(), flow.hops.begin(), flow.hops.end());
    }
    graph_.patterns.push_back(pattern);
    return static_cast<std::int32_t>(graph_.patterns.size()) - 1;
  }

  std::int32_t group(const std::vector<std::int32_t>& devices) {
    graph_.groups.push_back({static_cast<std::int32_t>(graph_.group_devices.size()),
                             static_cast<std::int32_t>(devices.size())});
    graph_.group_devices.insert(graph_.group_devices.end(), devices.begin(), devices.end());
    return static_cast<std::int32_t>(graph_.groups.size()) - 1;
  }

  std::int32_t comm(CommKind kind, std::int32_t group, double latency_s, std::int32_t pattern = -1,
                    double bytes = 0) {
    Task task;
    task.kind = TaskKind::Comm;
    task.comm = kind;
    task.stream = Stream::Data;
    task.device = group;
    task.seconds = latency_s;
    task.payload = pattern;
    task.bytes = bytes;
    task.rank_bytes = bytes;
    return add(task);
  }

  void edge(std::int32_t from, std::int32_t to) { edges_.add(from, to); }
  void wrap(std::int32_t from, std::int32_t to) { edges_.add_wrap(from, to); }
  StepGraph& graph() { return graph_; }

  StepGraph finish(bool wrap_chains = true) {
    if (graph_.labels.empty()) label("work");
    for (std::size_t i = 0; wrap_chains && i < first_.size(); ++i)
      if (first_[i] >= 0) edges_.add_wrap(last_[i], first_[i]);
    edges_.finish(graph_);
    return std::move(graph_);
  }

 private:
  std::int32_t add(const Task& task) {
    graph_.tasks.push_back(task);
    return static_cast<std::int32_t>(graph_.tasks.size()) - 1;
  }

  StepGraph graph_;
  EdgeList edges_;
  std::vector<std::int32_t> first_, last_;
};

}  // namespace rehearse
