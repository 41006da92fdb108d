// Expert parallelism: dispatch and combine among the ranks that share a layer's experts, and what
// becomes of the gradients and weights that fewer ranks have copies of.
#include <algorithm>

#include "plan/ensure.h"
#include "strategies/expert_groups.h"
#include "strategies/fluid_time.h"
#include "strategies/lowering.h"

namespace rehearse {
namespace {

/// SMs that DeepSeek-V3's own all-to-all kernels hold (arXiv 2412.19437, §3.2.2).
constexpr double kNodeLimitedSms = 20;

}  // namespace

/// Groups of one team: consecutive data and context ranks that hold all experts once.
std::vector<std::vector<GpuId>> Lowering::expert_ranks(int stage, int team) const {
  const int size = ranks_with_all_experts(plan_), shared = expert_tensor_ranks(plan_);
  std::vector<std::vector<GpuId>> groups(static_cast<std::size_t>(shared));
  for (int i = 0; i < size; ++i)
    for (int tensor = 0; tensor < plan_.tp; ++tensor) {
      const int rank = team * size + i;
      groups[static_cast<std::size_t>((i * plan_.tp + tensor) % shared)].push_back(
          gpu({tensor, rank % plan_.cp}, rank / plan_.cp, stage));
    }
  return groups;
}

/// Folded, all teams go together; else those of the replicas that share teams with the unit's.
std::vector<int> Lowering::expert_teams_of(const StageUnit& u) const {
  int first = 0, count = expert_copies(plan_);
  if (options_.fidelity != Fidelity::Folded) {
    const int replicas = replicas_with_all_experts(plan_);
    count = replicas * plan_.cp / ranks_with_all_experts(plan_);
    first = u.replica_class / replicas * count;
  }
  std::vector<int> teams;
  for (int team = first; team < first + count; ++team) teams.push_back(team);
  return teams;
}

/// Latency and flows of a dispatch or combine of a group on several nodes.
void Lowering::put_experts_on_network(const StageUnit& u, const std::vector<GpuId>& group,
                                      Task& task) {
  const CommunicatorShape shape = communicator(group);
  const Experts& experts = in_.model.experts;
  const ExpertTraffic traffic = expert_traffic({.ranks = plan_.ep,
                                                .nodes = shape.nodes,
                                                .experts = experts.count,
                                                .active = experts.active,
                                                .node_limit = plan_.experts.node_limit});
  // Kernels that limit the nodes of a token write to their peers' memory by themselves; NCCL's
  // proxy handles every peer's message.
  const bool own_kernels = plan_.experts.node_limit > 0;
  task.seconds = nccl_choice(own_kernels ? CollectiveKind::SendReceive : CollectiveKind::AllToAll,
                             shape, task.bytes)
                     .latency_s;
  const std::vector<int> teams = expert_teams_of(u);
  const std::string name = "experts " + std::to_string(u.stage) + " " + std::to_string(teams[0]);
  task.payload = pattern(name, [&] {
    std::vector<PhysicalFlow> flows;
    for (const int team : teams)
      for (const std::vector<GpuId>& ranks : expert_ranks(u.stage, team))
        for (const PhysicalFlow& flow : expert_flows(cluster_, ranks, traffic))
          flows.push_back(flow);
    return flows;
  });
}

Task Lowering::expert_task(const StageUnit& u, const Piece& piece) {
  const std::vector<int> teams = expert_teams_of(u);
  const std::vector<GpuId> group = expert_ranks(u.stage, teams.front()).front();
  const CollectiveChoice choice =
      nccl_choice(CollectiveKind::AllToAll, communicator(group), piece.bytes);
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Expert;
  task.stream = Stream::Expert;
  task.overlaps = plan_.overlap.experts;
  task.label = piece.label;
  task.bytes = task.rank_bytes = piece.bytes;
  if (is_local(cluster_, group))
    task.seconds = choice.seconds(piece.bytes);
  else
    put_experts_on_network(u, group, task);
  std::vector<std::int32_t> devices;
  for (const StageUnit& other : units_) {
    const std::vector<int> theirs = expert_teams_of(other);
    if (other.stage != u.stage || theirs.front() != teams.front()) continue;
    for (int d = 0; d < unit_devices_; ++d) devices.push_back(device(other, d));
  }
  task.device = add_group(devices);
  const GpuSpec& gpu = cluster_.gpu(group.front());
  const double held = plan_.experts.node_limit > 0 ? kNodeLimitedSms : choice.channels;
  double& share = out_.compute_share[static_cast<std::size_t>(CommKind::Expert)];
  share = std::max(share, held / std::max(1, gpu.streaming_multiprocessors));
  return task;
}

/// The n-th call of a unit is the n-th of all units of its team: they join in one task.
void Lowering::add_expert_collective(StageUnit& u, const ActionAt& at_action, const Piece& piece) {
  const std::tuple key{u.stage, expert_teams_of(u).front(), u.expert_calls++};
  const auto [at, is_new] = expert_calls_.try_emplace(key, -1);
  if (is_new) {
    auto prototype = std::find_if(
        u.expert_tasks.begin(), u.expert_tasks.end(),
        [&](const Task& made) { return made.bytes == piece.bytes && made.label == piece.label; });
    if (prototype == u.expert_tasks.end())
      prototype = u.expert_tasks.insert(u.expert_tasks.end(), expert_task(u, piece));
    Task task = *prototype;
    task.chunk = static_cast<std::int16_t>(at_action.chunk);
    task.micro_batch = at_action.micro_batch;
    at->second = add_task(task);
  }
  const std::int32_t id = at->second;
  std::int32_t last = -1;  // devices often wait for the same task
  for (int d = 0; d < unit_devices_; ++d) {
    const auto own = static_cast<std::size_t>(d);
    for (const std::int32_t before : {u.awaited[own].task, u.awaited[own].beside})
      if (before >= 0 && before != last) edges_.add(last = before, id);
    u.beside[own] = u.awaited[own];
    u.awaited[own] = {id, -1};
    note(u, at_action, d, piece, id);
  }
  if (u.expert_tail >= 0 && u.expert_tail != last) edges_.add(u.expert_tail, id);
  u.expert_tail = id;
}

double Lowering::expert_bucket_size(int stage, int chunk, int bucket) const {
  if (plan_.ep == 1) return 0;  // experts are everybody's, like the rest
  const StageUnit& u = units_[static_cast<std::size_t>(stage)];
  return kinds_[u.kind]
      .chunks[program_of(stage, chunk)]
      .bucket_expert_parameters[static_cast<std::size_t>(bucket)];
}

/// Inside a set of shards (without HSDP: all data ranks) every size-th data and context rank has
/// copies of the same experts, and they share them out. Each team has the ranks of the replicas at
/// one place among those that fill groups together; folded, all go together.
std::vector<DataTeam> Lowering::expert_data_teams(int stage, int t) const {
  std::vector<DataTeam> teams;
  if (plan_.ep == 1 || expert_sharing_copies(plan_) == 1) return teams;
  const int size = ranks_with_all_experts(plan_), places = replicas_with_all_experts(plan_);
  const int replicas = shard_ranks(plan_), ranks = sharing_ranks();
  for (int shards = 0; shards < plan_.dp / replicas; ++shards)
    for (int place = 0; place < places; ++place) {
      if (teams.empty() || options_.fidelity != Fidelity::Folded) teams.emplace_back();
      DataTeam& team = teams.back();
      for (int replica = place; replica < replicas; replica += places)
        add_class(team, shards * replicas + replica);
      for (int context = 0; context < std::min(size, plan_.cp); ++context) {
        std::vector<DataRank> group;
        for (int rank = place * plan_.cp + context; rank < ranks; rank += size)
          group.push_back({shards * replicas + rank / plan_.cp, rank % plan_.cp});
        team.ranks.push_back(std::move(group));
      }
    }
  finish_teams(stage, t, "copies of experts", teams);
  return teams;
}

/// HSDP: ranks at the same place of each set of shards sum what each of them has of the experts.
std::vector<DataTeam> Lowering::expert_replica_teams(int stage, int t) const {
  std::vector<DataTeam> teams;
  const int replicas = shard_ranks(plan_);
  if (plan_.ep == 1 || replicas == plan_.dp) return teams;
  for (int place = 0; place < replicas; ++place) {
    if (teams.empty() || options_.fidelity != Fidelity::Folded) teams.emplace_back();
    DataTeam& team = teams.back();
    for (int replica = place; replica < plan_.dp; replica += replicas) add_class(team, replica);
    for (int context = 0; context < plan_.cp; ++context) {
      std::vector<DataRank> group;
      for (int replica = place; replica < plan_.dp; replica += replicas)
        group.push_back({replica, context});
      team.ranks.push_back(std::move(group));
    }
  }
  finish_teams(stage, t, "sets of experts", teams);
  return teams;
}

void Lowering::add_class(DataTeam& team, int replica) const {
  const int c = classes_.class_of[static_cast<std::size_t>(replica)];
  if (std::find(team.classes.begin(), team.classes.end(), c) == team.classes.end())
    team.classes.push_back(c);
}

void Lowering::finish_teams(int stage, int t, const char* name,
                            std::vector<DataTeam>& teams) const {
  for (std::size_t i = 0; i < teams.size(); ++i) {
    DataTeam& team = teams[i];
    team.name = std::string(name) + " " + std::to_string(i) + " " + std::to_string(stage) + " " +
                std::to_string(t);
    team.gpus = gpus_of(stage, tensor_members(t).front(), team.ranks.front());
    team.is_local = is_local(cluster_, team.gpus);
    for (const int c : team.classes)
      for (const int d : lane(t))
        team.devices.push_back(units_[static_cast<std::size_t>(c * plan_.pp + stage)].first_device +
                               d);
  }
}

/// Follows the reduction of a bucket's other gradients on the same stream.
void Lowering::reduce_expert_gradients(int stage, int t, int chunk, int bucket,
                                       std::vector<DataTeam>& teams, const TeamCall& like) {
  const double parameters = expert_bucket_size(stage, chunk, bucket);
  if (parameters <= 0) return;
  TeamCall call = like;
  call.bytes = parameters * gradient_bytes();
  for (DataTeam& team : teams) {
    team.tail = whole_team(stage, t).tail;
    const std::int32_t id = add_team_collective(stage, t, team, call);
    for (const int c : team.classes) {
      StageUnit& u = unit(c, stage);
      const auto& ready = u.bucket_ready[static_cast<std::size_t>(chunk)];
      for (const int d : lane(t)) {
        const auto own = static_cast<std::size_t>(d);
        const auto at = static_cast<std::size_t>(bucket * unit_devices_ + d);
        edges_.add(plan_.overlap.gradients ? ready[at] : u.awaited[own].task, id);
        std::int32_t& last = u.last_reduction[own];
        if (last >= 0) edges_.add(last, id);
        last = team.tail;
      }
    }
  }
}

/// ZeRO-2, 3: of one visit of a layer, after the other gradients; `reduced` by replica class.
void Lowering::reduce_expert_shards(int stage, int t, std::size_t visit_index, ExpertTeams& experts,
                                    std::map<int, std::int32_t>& reduced) {
  const BucketVisit visit = unit(0, stage).visits[visit_index];
  const double bytes = expert_bucket_size(stage, visit.chunk, visit.bucket) * gradient_bytes();
  if (bytes <= 0) return;
  const auto reduce = [&](std::vector<DataTeam>& teams, CollectiveKind kind, double size,
                          const char* label) {
    for (DataTeam& team : teams) {
      const std::int32_t id = add_team_collective(
          stage, t, team,
          {kind, CommKind::Data, Stream::Data, size, label, plan_.overlap.gradients});
      for (const int c : team.classes) {
        for (const int d : lane(t))
          edges_.add(unit(c, stage).visits[visit_index].last[static_cast<std::size_t>(d)], id);
        if (const auto before = reduced.find(c); before != reduced.end())
          edges_.add(before->second, id);
        reduced[c] = last_replica_reduction_[{stage, t, c}] = team.tail;
      }
    }
  };
  reduce(experts.sharing, CollectiveKind::ReduceScatter, bytes, "gradient reduce-scatter");
  reduce(experts.replicas, CollectiveKind::AllReduce, bytes / expert_sharing_copies(plan_),
         "gradient all-reduce");
}

}  // namespace rehearse
