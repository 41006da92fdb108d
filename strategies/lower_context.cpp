// What context ranks send each other inside attention: the hops of a ring, all of its ranks at
// once, or all-to-alls. A hop is done when the slowest of the ring's ranks has its block.
#include <algorithm>

#include "strategies/fluid_time.h"
#include "strategies/lowering.h"

namespace rehearse {

std::vector<GpuId> Lowering::context_group(int replica, int tensor, int stage) const {
  std::vector<GpuId> gpus;
  for (int context = 0; context < plan_.cp; ++context)
    gpus.push_back(gpu({tensor, context}, replica, stage));
  return gpus;
}

std::vector<std::vector<GpuId>> Lowering::context_groups(const std::vector<int>& replicas, int t,
                                                         int stage) const {
  std::vector<std::vector<GpuId>> groups;
  for (const int replica : replicas)
    for (const int tensor : tensor_members(t))
      groups.push_back(context_group(replica, tensor, stage));
  return groups;
}

/// NCCL's time of the slowest edge, of which the flows of all rings take the part that they need
/// on an idle network.
void Lowering::time_ring_hop(Task& task, const std::vector<std::vector<GpuId>>& groups,
                             const std::string& name) {
  const auto edges = [](const std::vector<GpuId>& ring) {
    std::vector<PhysicalFlow> flows;
    for (std::size_t i = 0; i < ring.size(); ++i)
      flows.push_back({ring[i], ring[(i + 1) % ring.size()], 1});
    return flows;
  };
  CollectiveChoice slowest;
  double slowest_s = -1;
  for (const PhysicalFlow& edge : edges(groups.front())) {
    const CollectiveChoice choice =
        nccl_choice(CollectiveKind::SendReceive, communicator({edge.from, edge.to}), task.bytes);
    if (choice.seconds(task.bytes) <= slowest_s) continue;
    slowest = choice;
    slowest_s = choice.seconds(task.bytes);
  }
  task.seconds = slowest_s;
  if (is_local(cluster_, groups.front())) return;
  const auto [at, is_new] = idle_seconds_per_byte_.try_emplace(name, 0.0);
  if (is_new) at->second = fluid_seconds_per_byte(cluster_, edges(groups.front()));
  task.seconds = std::max(slowest.latency_s, slowest_s - task.bytes * at->second);
  task.payload = pattern(name, [&] {
    std::vector<PhysicalFlow> flows;
    for (const std::vector<GpuId>& ring : groups)
      for (const PhysicalFlow& edge : edges(ring)) flows.push_back(edge);
    return flows;
  });
}

Task Lowering::context_task(const StageUnit& u, const Piece& piece, int t) {
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(u.replica_class)];
  const std::vector<std::vector<GpuId>> groups = context_groups(replicas, t, u.stage);
  const std::vector<GpuId>& group = groups.front();
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Context;
  task.stream = Stream::Tensor;  // transfers inside layers go one after the other
  task.overlaps = plan_.context == ContextKind::Ring && plan_.overlap.context;
  task.label = piece.label;
  task.bytes = task.rank_bytes = piece.bytes;
  const std::string name = "context " + std::to_string(replicas.front()) + " " +
                           std::to_string(u.stage) + " " + std::to_string(t);
  const CollectiveChoice choice = nccl_choice(piece.collective, communicator(group), piece.bytes);
  if (piece.collective == CollectiveKind::SendReceive)
    time_ring_hop(task, groups, name + " ring");
  else if (is_local(cluster_, group))
    task.seconds = choice.seconds(piece.bytes);
  else
    put_on_network(task, name, groups, piece.collective);
  const double sms = std::max(1, cluster_.gpu(group.front()).streaming_multiprocessors);
  double& share = out_.compute_share[static_cast<std::size_t>(CommKind::Context)];
  // Between nodes NCCL has two channels to a peer, as for transfers between stages.
  share = std::max(share, (is_local(cluster_, group) ? choice.channels : 2) / sms);
  return task;
}

}  // namespace rehearse
