#include <algorithm>
#include <map>

#include "plan/ensure.h"
#include "strategies/expert_groups.h"
#include "strategies/lowering.h"

namespace rehearse {

std::vector<int> Lowering::lane(int t) const {
  std::vector<int> devices;
  for (int c = 0; c < context_devices_; ++c) devices.push_back(c * tensor_devices_ + t);
  return devices;
}

/// The groups of one team: consecutive data ranks with all of their context ranks share out what
/// they sum; strided ones sum what each rank has of it, so context ranks go side by side.
std::vector<std::vector<DataRank>> Lowering::team_groups(int stage, int t, int size, int index,
                                                         bool strided) const {
  std::vector<std::vector<DataRank>> groups(strided ? static_cast<std::size_t>(plan_.cp) : 1);
  const int stride = strided ? plan_.dp / size : 1;
  const int first = strided ? index : index * size;
  for (int i = 0; i < size; ++i)
    for (int c = 0; c < plan_.cp; ++c)
      groups[strided ? static_cast<std::size_t>(c) : 0].push_back({first + i * stride, c});
  const auto number = [&](const DataRank& at) {
    return ranks_.rank({tensor_members(t).front(), at.context, at.replica, stage}).value;
  };
  for (std::vector<DataRank>& group : groups)
    std::sort(group.begin(), group.end(),
              [&](const DataRank& a, const DataRank& b) { return number(a) < number(b); });
  return groups;
}

std::vector<DataTeam> Lowering::data_teams(int stage, int t, int size, bool strided) const {
  std::vector<DataTeam> teams;
  for (int g = 0; g < plan_.dp / size; ++g) {
    std::vector<std::vector<DataRank>> groups = team_groups(stage, t, size, g, strided);
    // Folded, all groups go together; else each replica is a class of its own.
    if (teams.empty() || options_.fidelity != Fidelity::Folded) {
      DataTeam team;
      team.gpus = gpus_of(stage, tensor_members(t).front(), groups.front());
      team.is_local = is_local(cluster_, team.gpus);
      team.name = (strided ? "strided " : "data ") + std::to_string(size) + " " +
                  std::to_string(g) + " " + std::to_string(stage) + " " + std::to_string(t);
      teams.push_back(std::move(team));
    }
    DataTeam& team = teams.back();
    for (const DataRank& rank : groups.front()) {
      const int c = classes_.class_of[static_cast<std::size_t>(rank.replica)];
      if (std::find(team.classes.begin(), team.classes.end(), c) == team.classes.end())
        team.classes.push_back(c);
    }
    for (std::vector<DataRank>& group : groups) team.ranks.push_back(std::move(group));
  }
  for (DataTeam& team : teams)
    for (const int c : team.classes)
      for (const int d : lane(t))
        team.devices.push_back(units_[static_cast<std::size_t>(c * plan_.pp + stage)].first_device +
                               d);
  return teams;
}

void Lowering::make_data_teams() {
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t)
      whole_teams_.push_back(data_teams(stage, t, plan_.dp, false).front());
}

double Lowering::bucket_size(int stage, int chunk, int bucket) const {
  const StageUnit& u = units_[static_cast<std::size_t>(stage)];
  const double all = kinds_[u.kind]
                         .chunks[program_of(stage, chunk)]
                         .bucket_parameters[static_cast<std::size_t>(bucket)];
  return all - expert_bucket_size(stage, chunk, bucket);
}

std::int32_t Lowering::add_team_collective(int stage, int t, DataTeam& team, const TeamCall& call) {
  const CollectiveChoice choice = nccl_choice(call.kind, communicator(team.gpus), call.bytes);
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = call.comm;
  task.stream = call.stream;
  task.overlaps = call.overlaps;
  task.device = add_group(team.devices);
  task.label = labels_.of(call.label);
  task.bytes = call.bytes;
  // What a rank hands over: the whole buffer of a reduction, its own shard of a gather.
  const auto ranks = static_cast<double>(team.gpus.size());
  task.rank_bytes = call.kind == CollectiveKind::AllGather ? call.bytes / ranks : call.bytes;
  const std::string name =
      team.name + " " + collective_name(call.kind) + " " + algorithm_name(choice.algorithm);
  const double latency_s =
      team.is_local ? choice.seconds(call.bytes)
                    : latency_before_flows(name, team.gpus, call.kind, choice, call.bytes);
  task.seconds = latency_s;
  // Trees pipeline small chunks; only rings have steps worth simulating one by one.
  const bool stepwise = options_.collectives == CollectiveDetail::Stepwise && !team.is_local &&
                        team.ranks.size() == 1 && choice.algorithm == CollectiveAlgorithm::Ring;
  if (stepwise) task.seconds = 0;
  if (!team.is_local && !stepwise)
    task.payload = pattern(name, [&] {
      std::vector<PhysicalFlow> flows;
      for (const std::vector<DataRank>& members : team.ranks)
        for (const int tensor : tensor_members(t))
          for (const PhysicalFlow& flow : collective_flows(
                   cluster_, gpus_of(stage, tensor, members), call.kind, choice.algorithm))
            flows.push_back(flow);
      return flows;
    });
  const GpuSpec& gpu = cluster_.gpu(team.gpus.front());
  double& share = out_.compute_share[static_cast<std::size_t>(call.comm)];
  share = std::max(
      share, static_cast<double>(choice.channels) / std::max(1, gpu.streaming_multiprocessors));
  const std::int32_t id = add_task(task);
  std::int32_t& tail = call.stream == Stream::Parameter ? team.gather_tail : team.tail;
  if (tail >= 0) edges_.add(tail, id);
  tail = stepwise ? add_ring_steps(stage, t, team, call.kind, latency_s, id) : id;
  return id;
}

void Lowering::emit_gradient_reductions() {
  if (data_ranks() == 1 || plan_.zero >= 2 || has_servers() || averages_weights()) return;
  const bool sharded = plan_.zero > 0;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      std::vector<DataTeam> expert_teams = expert_data_teams(stage, t);
      for (const auto& [chunk, bucket] : unit(0, stage).bucket_order) {
        const double parameters = bucket_size(stage, chunk, bucket);
        const TeamCall call{sharded ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce,
                            CommKind::Data,
                            Stream::Data,
                            parameters * gradient_bytes(),
                            sharded ? "gradient reduce-scatter" : "gradient all-reduce",
                            plan_.overlap.gradients};
        if (parameters <= 0) {
          reduce_expert_gradients(stage, t, chunk, bucket, expert_teams, call);
          continue;
        }
        const std::int32_t id = add_team_collective(stage, t, whole_team(stage, t), call);
        for (std::size_t c = 0; c < classes_.members.size(); ++c) {
          const StageUnit& u = unit(static_cast<int>(c), stage);
          for (const int d : lane(t)) {
            const auto own = static_cast<std::size_t>(d);
            if (u.last_reduction[own] >= 0) edges_.add(u.last_reduction[own], id);
            const std::size_t at = static_cast<std::size_t>(bucket * unit_devices_ + d);
            // Without overlap the reduction starts when all backwards are done.
            edges_.add(plan_.overlap.gradients ? u.bucket_ready[static_cast<std::size_t>(chunk)][at]
                                               : u.awaited[own].task,
                       id);
          }
        }
        reduce_expert_gradients(stage, t, chunk, bucket, expert_teams, call);
      }
    }
}

/// Stages that hold copies of the same parameters sum their gradients after the data-parallel
/// reduction: the tied table on first and last stage (Megatron-LM, finalize_model_grads), and with
/// both ways through the pipeline the two pieces of a stage on its mirror image. Of gradients that
/// data ranks share out, each rank sums its share.
void Lowering::emit_copy_reductions() {
  if (in_.schedule.placement == Placement::BothWays) {
    for (int stage = 0; 2 * stage < plan_.pp; ++stage) {
      add_copy_reduction(stage, plan_.pp - 1 - stage,
                         owned_parameters(unit(0, stage)) * gradient_bytes(),
                         "mirrored gradient all-reduce");
    }
  } else if ((in_.model.tied_embeddings || in_.model.mtp_layers > 0) && !ends_meet(in_.schedule)) {
    // The table alone: learned positions lie on the first stage only.
    add_copy_reduction(
        0, plan_.pp - 1, table_parameters_per_rank(shape_) * gradient_bytes(),
        in_.model.tied_embeddings ? "tied embedding all-reduce" : "shared embedding all-reduce");
  }
}

void Lowering::add_copy_reduction(int first_stage, int second_stage, double bytes,
                                  const char* label) {
  for (std::size_t c = 0; c < classes_.members.size(); ++c)
    for (int d = 0; d < unit_devices_; ++d) {
      StageUnit& first = unit(static_cast<int>(c), first_stage);
      StageUnit& last = unit(static_cast<int>(c), second_stage);
      const int replica = classes_.members[c].front();
      const InnerRank inner = inner_ranks(d).front();
      const std::vector<GpuId> pair{gpu(inner, replica, first_stage),
                                    gpu(inner, replica, second_stage)};
      const CollectiveChoice choice =
          nccl_choice(CollectiveKind::AllReduce, communicator(pair), bytes);
      Task task;
      task.kind = TaskKind::Comm;
      task.comm = CommKind::Data;
      task.stream = Stream::Data;
      task.device = add_group({device(first, d), device(last, d)});
      task.label = labels_.of(label);
      task.bytes = task.rank_bytes = bytes;
      const std::string name = "copies " + std::to_string(c) + " " + std::to_string(first_stage) +
                               " " + std::to_string(d);
      task.seconds =
          is_local(cluster_, pair)
              ? choice.seconds(bytes)
              : latency_before_flows(name, pair, CollectiveKind::AllReduce, choice, bytes);
      if (!is_local(cluster_, pair))
        task.payload = pattern(name, [&] {
          std::vector<PhysicalFlow> flows;  // two ranks: each sends the other all bytes
          for (const int of : classes_.members[c])
            for (const InnerRank& at : inner_ranks(d)) {
              flows.push_back({gpu(at, of, first_stage), gpu(at, of, second_stage)});
              flows.push_back({gpu(at, of, second_stage), gpu(at, of, first_stage)});
            }
          return flows;
        });
      const std::int32_t id = add_task(task);
      for (StageUnit* end : {&first, &last}) {
        const std::int32_t before = whole_team(end->stage, d % tensor_devices_).tail;
        edges_.add(end->awaited[static_cast<std::size_t>(d)].task, id);
        if (before >= 0) edges_.add(before, id);
        if (const std::int32_t reduced = end->last_reduction[static_cast<std::size_t>(d)];
            reduced >= 0)
          edges_.add(reduced, id);
        end->copy_reduction.push_back(id);
      }
    }
}

std::int32_t Lowering::add_step_compute(StageUnit& u, int d, std::int32_t segment,
                                        const char* label) {
  Piece piece;
  piece.segment = segment;
  return add_compute(u, d, piece, labels_.of(label), -1, -1);
}

double Lowering::stage_parameters(const StageUnit& u) const {
  double parameters = 0;
  for (int v = 0; v < in_.schedule.chunks; ++v)
    parameters += kinds_[u.kind].chunks[program_of(u.stage, v)].parameters();
  return parameters;
}

double Lowering::owned_parameters(const StageUnit& u) const {
  double experts = 0;
  if (plan_.ep > 1)
    for (int v = 0; v < in_.schedule.chunks; ++v)
      experts += kinds_[u.kind].chunks[program_of(u.stage, v)].expert_parameters();
  return rehearse::owned_parameters(plan_, stage_parameters(u), experts);
}

std::vector<SegmentItem> Lowering::optimizer_items(const StageUnit& u, bool norm) {
  const double parameters = stage_parameters(u), owned = owned_parameters(u);
  const CostModel& costs = *in_.cost_models[static_cast<std::size_t>(kinds_[u.kind].group)];
  std::vector<SegmentItem> items;
  for (const Operator& op : optimizer_operators(parameters, owned, plan_.precision,
                                                plan_.gradient_precision, plan_.moment_precision)) {
    if ((op.name == OperatorName::GradientNorm) != norm) continue;
    if (op.name == OperatorName::GradientNorm && plan_.offload.gradients) continue;
    if (op.name == OperatorName::Adam && (plan_.offload.optimizer || has_servers())) continue;
    SegmentItem item;
    const Cost cost = costs.cost(op);
    item.seconds = cost.seconds;
    item.label = labels_.of(operator_name(op.name));
    item.work = WorkKind::Optimizer;
    items.push_back(item);
    const auto ranks =
        static_cast<double>(classes_.members[static_cast<std::size_t>(u.replica_class)].size()) *
        plan_.tp * plan_.cp;
    out_.seconds_by_source[static_cast<std::size_t>(cost.source)] += ranks * cost.seconds;
  }
  return items;
}

std::int32_t Lowering::add_control(const std::vector<std::int32_t>& devices,
                                   const std::vector<GpuId>& gpus) {
  constexpr double kScalarBytes = 4;  // the sum of squares, fp32
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Control;
  task.stream = Stream::Data;
  task.device = add_group(devices);
  task.label = labels_.of("gradient norm all-reduce");
  task.bytes = task.rank_bytes = kScalarBytes;
  task.seconds = nccl_choice(CollectiveKind::AllReduce, communicator(gpus), kScalarBytes)
                     .seconds(kScalarBytes);
  return add_task(task);
}

/// By class and context device: the norm is summed over all ranks that hold different gradients,
/// tensor and pipeline ranks of a replica, and with sharded gradients data and context ranks too.
std::vector<std::int32_t> Lowering::emit_gradient_norm() {
  const auto contexts = static_cast<std::size_t>(context_devices_);
  std::vector<std::int32_t> control(classes_.members.size() * contexts, -1);
  const bool across_replicas = plan_.zero > 0 && data_ranks() > 1;
  std::vector<std::int32_t> devices;
  std::vector<GpuId> gpus;
  for (std::size_t i = 0; i < control.size(); ++i) {
    const std::size_t c = i / contexts;
    if (!across_replicas) devices.clear(), gpus.clear();
    for (int stage = 0; stage < plan_.pp; ++stage) {
      const int context = static_cast<int>(i % contexts);
      for (const int d : layer_devices(CommGroup::Tensor, context))
        devices.push_back(device(unit(static_cast<int>(c), stage), d));
      std::vector<int> replicas = classes_.members[c];
      if (!across_replicas) replicas.resize(1);
      std::vector<std::vector<GpuId>> groups = tensor_groups(replicas, context, stage);
      if (!across_replicas) groups.resize(1);
      for (const std::vector<GpuId>& group : groups)
        gpus.insert(gpus.end(), group.begin(), group.end());
    }
    if (!across_replicas && gpus.size() > 1) control[i] = add_control(devices, gpus);
  }
  if (across_replicas) {
    std::sort(gpus.begin(), gpus.end());
    std::fill(control.begin(), control.end(), add_control(devices, gpus));
  }
  return control;
}

void Lowering::emit_step_end() {
  struct Norms {
    std::int32_t norm_segment, update_segment;
  };
  // Gradient norm on every device, then its sum, then the update.
  std::vector<Norms> segments;
  for (StageUnit& u : units_) {
    const double launch_s =
        in_.cost_models[static_cast<std::size_t>(kinds_[u.kind].group)]->launch_s();
    const std::int32_t norm = add_segment(out_.graph, optimizer_items(u, true), launch_s);
    segments.push_back({norm, add_segment(out_.graph, optimizer_items(u, false), launch_s)});
    for (int d = 0; d < unit_devices_; ++d) {
      const auto at = static_cast<std::size_t>(d);
      const std::int32_t on_host = plan_.offload.gradients ? add_host_norm(u, d) : -1;
      const std::int32_t id = add_step_compute(u, d, norm, "gradient norm");
      if (on_host >= 0) edges_.add(on_host, id);
      if (const std::int32_t tail = whole_team(u.stage, d % tensor_devices_).tail; tail >= 0)
        edges_.add(tail, id);
      if (u.last_reduction[at] >= 0) edges_.add(u.last_reduction[at], id);
      if (!u.copy_reduction.empty()) edges_.add(u.copy_reduction[at], id);
    }
  }
  const std::vector<std::int32_t> control = emit_gradient_norm();
  const auto sum_of = [&](const StageUnit& u, int d) {
    return control[static_cast<std::size_t>(u.replica_class * context_devices_ +
                                            d / tensor_devices_)];
  };
  for (StageUnit& u : units_)
    for (int d = 0; d < unit_devices_; ++d)
      if (const std::int32_t sum = sum_of(u, d); sum >= 0)
        edges_.add(u.tail[static_cast<std::size_t>(d)], sum);
  for (std::size_t i = 0; i < units_.size(); ++i)
    for (int d = 0; d < unit_devices_; ++d) {
      StageUnit& u = units_[i];
      const std::int32_t sum = sum_of(u, d);
      const std::int32_t normed = sum >= 0 ? sum : u.tail[static_cast<std::size_t>(d)];
      const std::int32_t on_host = plan_.offload.optimizer ? add_host_update(u, d, normed) : -1;
      const std::int32_t id = add_step_compute(u, d, segments[i].update_segment, "update");
      if (sum >= 0) edges_.add(sum, id);
      if (on_host >= 0) edges_.add(on_host, id);
    }
  emit_parameter_gathers();
  if (averages_weights()) emit_weight_averages();
  wrap_gathers();
  for (StageUnit& u : units_)
    for (std::size_t d = 0; d < u.tail.size(); ++d) edges_.add_wrap(u.tail[d], u.first_task[d]);
}

double Lowering::parameter_bytes() const {
  // fp8 plans keep, and gather, bf16 parameters.
  return bytes_of(plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision);
}

double Lowering::gather_bytes(int stage, int chunk, int bucket, bool experts) const {
  const ChunkProgram& program =
      kinds_[units_[static_cast<std::size_t>(stage)].kind].chunks[program_of(stage, chunk)];
  const auto at = static_cast<std::size_t>(bucket);
  const double of_experts = expert_bucket_size(stage, chunk, bucket);
  const double whole =
      parameter_bytes() * (experts ? of_experts : program.bucket_parameters[at] - of_experts);
  if (!plan_.fp8.gathers) return whole;
  // All of the experts' matrices are operands of fp8 products where any are.
  const double fp8 = program.bucket_fp8_parameters[at];
  const double fp8_experts = std::min(fp8, of_experts);
  return whole - (experts ? fp8_experts : fp8 - fp8_experts) *
                     (parameter_bytes() - bytes_of(Precision::Fp8));
}

/// Gathers of one team, of the experts' weights or of all others, on its data stream.
void Lowering::gather_parameters(int stage, int t, DataTeam& team, bool experts) {
  // The forward of the next step asks for buckets in the reverse of the backward's order.
  const auto& completed = unit(0, stage).bucket_order;
  for (auto at = completed.rbegin(); at != completed.rend(); ++at) {
    const auto chunk = static_cast<std::size_t>(at->first);
    const auto bucket = static_cast<std::size_t>(at->second);
    const double parameters = experts ? expert_bucket_size(stage, at->first, at->second)
                                      : bucket_size(stage, at->first, at->second);
    if (parameters <= 0) continue;
    const std::int32_t id = add_team_collective(
        stage, t, team,
        {CollectiveKind::AllGather, CommKind::Parameter, Stream::Data,
         parameters * parameter_bytes(), "parameter all-gather", plan_.overlap.parameters});
    for (const int c : team.classes) {
      StageUnit& u = unit(c, stage);
      for (const int d : lane(t)) {
        const auto own = static_cast<std::size_t>(d);
        edges_.add(u.tail[own], id);
        const std::int32_t reader =
            u.bucket_reader[chunk][bucket * static_cast<std::size_t>(unit_devices_) + own];
        if (plan_.overlap.parameters && reader >= 0) edges_.add_wrap(team.tail, reader);
      }
    }
  }
}

void Lowering::emit_parameter_gathers() {
  if (data_ranks() == 1 || plan_.zero == 0 || plan_.zero == 3) return;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      std::vector<DataTeam> teams = data_teams(stage, t, shard_ranks(plan_), false);
      for (DataTeam& team : teams) {
        team.tail = whole_team(stage, t).tail;
        gather_parameters(stage, t, team, false);
      }
      std::vector<DataTeam> of_experts = expert_data_teams(stage, t);
      for (DataTeam& team : of_experts) {
        const auto meets = [&](const DataTeam& other) {
          return std::find(other.classes.begin(), other.classes.end(), team.classes.front()) !=
                 other.classes.end();
        };
        team.tail = std::find_if(teams.begin(), teams.end(), meets)->tail;
        gather_parameters(stage, t, team, true);
        teams.push_back(team);
      }
      if (plan_.overlap.parameters) continue;
      std::map<int, std::vector<std::int32_t>> tails;  // by class
      for (const DataTeam& team : teams)
        for (const int c : team.classes)
          if (team.tail >= 0) tails[c].push_back(team.tail);
      for (const auto& [c, ends] : tails)
        for (const int d : lane(t)) {
          const std::int32_t end =
              add_step_compute(unit(c, stage), d, empty_segment_, "parameters gathered");
          for (const std::int32_t tail : ends) edges_.add(tail, end);
        }
    }
}

}  // namespace rehearse
