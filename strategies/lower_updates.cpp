// Updates that are not an all-reduce of gradients.
//
// Parameter servers are processes on the hosts of the first nodes, spread over them one by one;
// each holds 1/n of every rank's weights with their optimizer state in host memory, and is reached
// through the NIC of one GPU of its node. Replicas push gradients and pull weights (Li et al. 2014,
// "Scaling Distributed Machine Learning with the Parameter Server", OSDI). A server adds up
// gradients as they arrive. Synchronous: it updates when it has those of all replicas. Else it
// applies each push by itself; bounded-stale replicas then wait for the slowest (Ho et al. 2013,
// "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NeurIPS).
//
// Local SGD: replicas update alone, and all-reduce their weights every `period` steps (Stich 2019,
// arXiv 1805.09767). Weights of replicas are scalars that ride with what is sent anyway.

#include <algorithm>

#include "strategies/lowering.h"

namespace rehearse {
namespace {

/// Adding gradients to their sum: both are read, one is written.
constexpr double kAccumulateTraffic = 3;

}  // namespace

GpuId Lowering::server_gpu(int server) const {
  const int nodes = cluster_.node_count(), node = server % nodes;
  const int place = server / nodes % cluster_.gpus_in_node(node);
  return GpuId{cluster_.first_gpu(node).value + place};
}

/// Host memory traffic a second that the update of one rank's piece of a server can count on: the
/// pieces of all stages and tensor ranks, and the servers of a node, share it.
double Lowering::server_bytes_per_s() const {
  const NodeSpec& node = cluster_.node(0);
  const int nodes = cluster_.node_count();
  const int on_node = (plan_.updates.servers + nodes - 1) / nodes;
  return host_rates(node).memory_bytes_per_s * node.gpus / (on_node * plan_.pp * plan_.tp);
}

std::vector<DataTeam> Lowering::server_teams(int stage, int t) {
  if (plan_.updates.synchrony == Synchrony::Synchronous) return {whole_team(stage, t)};
  std::vector<DataTeam> teams;
  for (std::size_t c = 0; c < classes_.members.size(); ++c) {
    DataTeam team;
    team.classes = {static_cast<int>(c)};
    std::vector<DataRank> ranks;
    for (const int replica : classes_.members[c]) ranks.push_back({replica, 0});
    team.ranks.push_back(std::move(ranks));
    team.devices = {device(unit(static_cast<int>(c), stage), t)};
    team.name =
        "replica " + std::to_string(c) + " " + std::to_string(stage) + " " + std::to_string(t);
    teams.push_back(std::move(team));
  }
  return teams;
}

/// A push to the servers, or a pull from them, of one bucket.
std::int32_t Lowering::add_server_transfer(int stage, int t, const DataTeam& team, bool push,
                                           double bytes) {
  const int servers = plan_.updates.servers;
  std::vector<PhysicalFlow> flows;
  for (const std::vector<DataRank>& ranks : team.ranks)
    for (const auto& [replica, context] : ranks)
      for (const int tensor : tensor_members(t))
        for (int server = 0; server < servers; ++server) {
          const GpuId worker = gpu({tensor, context}, replica, stage);
          const GpuId at = server_gpu(server);
          if (worker == at) continue;  // the server is on its own host
          flows.push_back({push ? worker : at, push ? at : worker, 1.0 / servers});
        }
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = push ? CommKind::Data : CommKind::Parameter;
  task.stream = push ? Stream::Data : Stream::Parameter;
  task.overlaps = push ? plan_.overlap.gradients : plan_.overlap.parameters;
  task.device = add_group(team.devices);
  task.label = labels_.of(push ? "gradients to servers" : "weights from servers");
  task.bytes = task.rank_bytes = bytes;
  if (!flows.empty()) {
    const CommunicatorShape shape = communicator({flows.front().from, flows.front().to});
    task.seconds = nccl_choice(CollectiveKind::SendReceive, shape, bytes / servers).latency_s;
    task.payload = pattern(team.name + (push ? " push" : " pull"), [&] { return flows; });
  }
  return add_task(task);
}

std::int32_t Lowering::add_server_work(const DataTeam& team, const char* label, double seconds) {
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Host;
  task.stream = Stream::Host;
  task.overlaps = true;
  task.device = add_group(team.devices);
  task.label = labels_.of(label);
  task.seconds = seconds;
  return add_task(task);
}

/// One team's pushes, what the servers do with them, and its pulls; each kind in line.
void Lowering::emit_server_round(int stage, int t, const DataTeam& team) {
  const bool together = plan_.updates.synchrony == Synchrony::Synchronous;
  const double rate = server_bytes_per_s() * plan_.updates.servers;  // of all of them
  const double adam_traffic =
      adam_traffic_bytes(plan_.precision, plan_.gradient_precision, plan_.moment_precision);
  const auto chain = [this](std::int32_t& tail, std::int32_t task) {
    if (tail >= 0) edges_.add(tail, task);
    tail = task;
  };
  const auto& order = unit(team.classes.front(), stage).bucket_order;
  std::int32_t pushed = -1, worked = -1, pulled = -1;
  std::vector<std::int32_t> push_of, work_of;
  for (const auto& [chunk, bucket] : order) {
    const double parameters = bucket_size(stage, chunk, bucket);
    const std::int32_t push =
        add_server_transfer(stage, t, team, true, parameters * gradient_bytes());
    const double traffic = together ? plan_.dp * kAccumulateTraffic * gradient_bytes()
                                    : plan_.dp * adam_traffic;  // as if all were at it at once
    const std::int32_t work =
        add_server_work(team, together ? "gradients summed by servers" : "Adam on servers",
                        parameters * traffic / rate);
    for (const int c : team.classes) {
      const StageUnit& u = unit(c, stage);
      const auto at = static_cast<std::size_t>(bucket * tensor_devices_ + t);
      const std::int32_t end = u.awaited[static_cast<std::size_t>(t)].task;
      const std::int32_t ready =
          plan_.overlap.gradients ? u.bucket_ready[static_cast<std::size_t>(chunk)][at] : end;
      edges_.add(ready, push);
      edges_.add(ready, work);
    }
    chain(pushed, push);
    chain(worked, work);
    push_of.push_back(push);
    work_of.push_back(work);
  }
  // The next forward asks for buckets in the reverse of the order in which backwards made them.
  for (std::size_t i = order.size(); i-- > 0;) {
    const auto& [chunk, bucket] = order[i];
    const double parameters = bucket_size(stage, chunk, bucket);
    std::int32_t updated = work_of[i];
    if (together) {  // clipping needs the norm of all gradients first
      updated = add_server_work(team, "Adam on servers", parameters * adam_traffic / rate);
      edges_.add(pushed, updated);
      chain(worked, updated);
    }
    const std::int32_t pull =
        add_server_transfer(stage, t, team, false, parameters * parameter_bytes());
    edges_.add(updated, pull);
    if (!together) edges_.add(push_of[i], pull);
    chain(pulled, pull);
    if (!plan_.overlap.parameters) continue;
    for (const int c : team.classes) {
      const std::int32_t reader =
          unit(c, stage).bucket_reader[static_cast<std::size_t>(chunk)]
                                      [static_cast<std::size_t>(bucket * tensor_devices_ + t)];
      if (reader >= 0) edges_.add_wrap(pull, reader);
    }
  }
  for (const int c : team.classes) server_ends_[{c, stage, t}] = {pushed, pulled};
}

void Lowering::emit_server_step_end() {
  std::vector<std::int32_t> ends;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t)
      for (const DataTeam& team : server_teams(stage, t)) emit_server_round(stage, t, team);
  for (StageUnit& u : units_) {
    const double launch_s =
        in_.cost_models[static_cast<std::size_t>(kinds_[u.kind].group)]->launch_s();
    const std::int32_t clear = add_segment(out_.graph, optimizer_items(u, false), launch_s);
    for (int t = 0; t < tensor_devices_; ++t)
      edges_.add(server_ends_.at({u.replica_class, u.stage, t}).first,
                 add_step_compute(u, t, clear, "update"));
    for (int t = 0; t < tensor_devices_; ++t) {
      if (!plan_.overlap.parameters)
        edges_.add(server_ends_.at({u.replica_class, u.stage, t}).second,
                   add_step_compute(u, t, empty_segment_, "weights pulled"));
      ends.push_back(u.tail[static_cast<std::size_t>(t)]);
    }
  }
  for (StageUnit& u : units_)
    for (std::size_t t = 0; t < u.tail.size(); ++t) edges_.add_wrap(u.tail[t], u.first_task[t]);
  if (plan_.updates.synchrony == Synchrony::BoundedStale) bound_staleness(ends);
}

/// All replicas' ends of a step let the step `staleness` + 1 later begin: a message that is handed
/// on once a step.
void Lowering::bound_staleness(const std::vector<std::int32_t>& ends) {
  const auto note = [&](const char* label) {
    Task task;
    task.kind = TaskKind::Comm;
    task.comm = CommKind::Control;
    task.stream = Stream::Data;
    task.device = add_group({units_.front().first_device});
    task.label = labels_.of(label);
    return add_task(task);
  };
  std::int32_t last = note("all replicas have updated");
  for (const std::int32_t end : ends) edges_.add(end, last);
  for (int i = 0; i < plan_.updates.staleness; ++i) {
    const std::int32_t next = note("a step later");
    edges_.add_wrap(last, next);
    last = next;
  }
  for (StageUnit& u : units_)
    for (const std::int32_t first : u.first_task) edges_.add_wrap(last, first);
}

/// Replicas average their weights after their own updates.
void Lowering::emit_weight_averages() {
  if (plan_.dp == 1) return;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      DataTeam& team = whole_team(stage, t);
      for (const auto& [chunk, bucket] : unit(0, stage).bucket_order) {
        const double bytes = bucket_size(stage, chunk, bucket) * gradient_bytes();
        if (bytes <= 0) continue;
        const std::int32_t id = add_team_collective(stage, t, team,
                                                    {CollectiveKind::AllReduce, CommKind::Parameter,
                                                     Stream::Data, bytes, "weight average", false});
        if (options_.local_step) {  // nobody sends: the same graph without this traffic
          Task& task = out_.graph.tasks[static_cast<std::size_t>(id)];
          task.bytes = task.rank_bytes = task.seconds = 0;
        }
        for (const int c : team.classes)
          edges_.add(unit(c, stage).tail[static_cast<std::size_t>(t)], id);
      }
      for (const int c : team.classes) {
        const std::int32_t end =
            add_step_compute(unit(c, stage), t, empty_segment_, "weights averaged");
        edges_.add(team.tail, end);
      }
    }
}

}  // namespace rehearse
