#include <algorithm>

#include "strategies/lowering.h"

namespace rehearse {

/// A ring collective over the nodes of a data group, step by step. A ring of N ranks takes
/// 2(N−1) steps (all-reduce) or N−1, in each of which every edge carries bytes/N; the step of an
/// edge follows the previous step of the same edge (one buffer) and of the edge before it (the
/// data it forwards). The edges between the ranks of a node move in step with the node's edge to
/// the next. `begin` is the collective's first task; returns the task that ends it.
std::int32_t Lowering::add_ring_steps(int stage, int t, const DataTeam& team, CollectiveKind kind,
                                      double latency_s, std::int32_t begin) {
  const std::vector<DataRank>& members = team.ranks.front();
  const Task whole = out_.graph.tasks[static_cast<std::size_t>(begin)];
  const auto ranks = static_cast<int>(team.gpus.size());
  const int steps = (kind == CollectiveKind::AllReduce ? 2 : 1) * (ranks - 1);

  // Edges of the ring by the node they leave; the ranks of a node are consecutive.
  std::vector<int> first_member;
  for (int r = 0; r < ranks; ++r)
    if (r == 0 || cluster_.node_of(team.gpus[static_cast<std::size_t>(r)]) !=
                      cluster_.node_of(team.gpus[static_cast<std::size_t>(r - 1)]))
      first_member.push_back(r);
  const auto edges = first_member.size();

  std::vector<Task> prototype(edges, whole);
  for (std::size_t e = 0; e < edges; ++e) {
    const int here = first_member[e];
    const int there = first_member[(e + 1) % edges];
    const auto device_of = [&](int member) {
      const DataRank& rank = members[static_cast<std::size_t>(member)];
      const int c = classes_.class_of[static_cast<std::size_t>(rank.replica)];
      return device(unit(c, stage),
                    (context_devices_ > 1 ? rank.context : 0) * tensor_devices_ + t);
    };
    std::vector<std::int32_t> devices{device_of(here)};
    if (device_of(there) != devices.front()) devices.push_back(device_of(there));
    Task& task = prototype[e];
    task.device = add_group(devices);
    task.seconds = latency_s / steps;
    task.bytes = whole.bytes / ranks;
    task.rank_bytes = 0;
    const std::string name =
        "step " + std::to_string(stage) + " " + std::to_string(t) + " " + std::to_string(e);
    task.payload = pattern(name, [&] { return ring_edge_flows(stage, t, team, e); });
  }

  std::vector<std::int32_t> before(edges, begin), now(edges, -1);
  for (int step = 0; step < steps; ++step) {
    for (std::size_t e = 0; e < edges; ++e) {
      now[e] = add_task(prototype[e]);
      edges_.add(before[e], now[e]);
      const std::int32_t forwarded = before[(e + edges - 1) % edges];
      if (forwarded != before[e]) edges_.add(forwarded, now[e]);
    }
    before.swap(now);
  }
  Task end = whole;
  end.seconds = end.rank_bytes = end.bytes = 0;
  end.payload = -1;
  const std::int32_t id = add_task(end);
  for (const std::int32_t last : before) edges_.add(last, id);
  return id;
}

/// Flows of one node's part of a ring step: to the next node on every channel, and between its
/// own ranks; factor 1 is what one edge of the ring carries in a step.
std::vector<PhysicalFlow> Lowering::ring_edge_flows(int stage, int t, const DataTeam& team,
                                                    std::size_t edge) const {
  std::vector<PhysicalFlow> flows;
  for (const int tensor : tensor_members(t)) {
    const std::vector<GpuId> gpus = gpus_of(stage, tensor, team.ranks.front());
    std::vector<std::vector<GpuId>> nodes;
    for (std::size_t i = 0; i < gpus.size(); ++i) {
      if (i == 0 || cluster_.node_of(gpus[i]) != cluster_.node_of(gpus[i - 1]))
        nodes.emplace_back();
      nodes.back().push_back(gpus[i]);
    }
    const std::vector<GpuId>& here = nodes[edge];
    const std::vector<GpuId>& there = nodes[(edge + 1) % nodes.size()];
    const std::size_t channels = std::min(here.size(), there.size());
    for (std::size_t c = 0; c < channels; ++c)
      flows.push_back({here[c], there[c], 1.0 / static_cast<double>(channels)});
    const auto g = static_cast<double>(here.size());
    if (here.size() > 1)
      for (std::size_t i = 0; i < here.size(); ++i)
        flows.push_back({here[i], here[(i + 1) % here.size()], (g - 1) / g});
  }
  return flows;
}

}  // namespace rehearse
