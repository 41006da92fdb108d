#include <algorithm>
#include <map>

#include "plan/ensure.h"
#include "strategies/expert_groups.h"
#include "strategies/lowering.h"

namespace rehearse {

std::vector<DataTeam> Lowering::data_teams(int stage, int t, int size, bool strided) const {
  const int count = plan_.dp / size;
  std::vector<DataTeam> teams;
  for (int g = 0; g < count; ++g) {
    std::vector<int> replicas;
    for (int i = 0; i < size; ++i) replicas.push_back(strided ? i * count + g : g * size + i);
    // Folded, all groups go together; else each replica is a class of its own.
    if (teams.empty() || options_.fidelity != Fidelity::Folded) {
      DataTeam team;
      team.gpus = gpus_of(stage, t, replicas);
      team.is_local = is_local(cluster_, team.gpus);
      team.name = (strided ? "strided " : "data ") + std::to_string(size) + " " +
                  std::to_string(g) + " " + std::to_string(stage) + " " + std::to_string(t);
      teams.push_back(std::move(team));
    }
    DataTeam& team = teams.back();
    for (const int replica : replicas) {
      const int c = classes_.class_of[static_cast<std::size_t>(replica)];
      if (std::find(team.classes.begin(), team.classes.end(), c) == team.classes.end())
        team.classes.push_back(c);
    }
    team.replicas.push_back(std::move(replicas));
  }
  for (DataTeam& team : teams)
    for (const int c : team.classes)
      team.devices.push_back(units_[static_cast<std::size_t>(c * plan_.pp + stage)].first_device +
                             t);
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
  const CollectiveChoice choice =
      nccl_choice(call.kind, communicator_shape(cluster_, team.gpus), call.bytes);
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
                        team.replicas.size() == 1 && choice.algorithm == CollectiveAlgorithm::Ring;
  if (stepwise) task.seconds = 0;
  if (!team.is_local && !stepwise)
    task.payload = pattern(name, [&] {
      std::vector<PhysicalFlow> flows;
      for (const std::vector<int>& replicas : team.replicas)
        for (const int tensor : tensor_members(t))
          for (const PhysicalFlow& flow : collective_flows(
                   cluster_, gpus_of(stage, tensor, replicas), call.kind, choice.algorithm))
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
  if (plan_.dp == 1 || plan_.zero >= 2 || has_servers() || averages_weights()) return;
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
          if (const std::int32_t before = u.last_reduction[static_cast<std::size_t>(t)];
              before >= 0)
            edges_.add(before, id);
          const std::size_t at = static_cast<std::size_t>(bucket * tensor_devices_ + t);
          const std::int32_t own = u.tail[static_cast<std::size_t>(t)];
          const std::int32_t end = u.open_comm >= 0 ? u.open_comm : own;
          // Without overlap the reduction starts when all backwards are done.
          edges_.add(
              plan_.overlap.gradients ? u.bucket_ready[static_cast<std::size_t>(chunk)][at] : end,
              id);
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
  } else if (in_.model.tied_embeddings && !ends_meet(in_.schedule)) {
    add_copy_reduction(0, plan_.pp - 1, embedding_parameters_per_rank(shape_) * gradient_bytes(),
                       "tied embedding all-reduce");
  }
}

void Lowering::add_copy_reduction(int first_stage, int second_stage, double bytes,
                                  const char* label) {
  for (std::size_t c = 0; c < classes_.members.size(); ++c)
    for (int t = 0; t < tensor_devices_; ++t) {
      StageUnit& first = unit(static_cast<int>(c), first_stage);
      StageUnit& last = unit(static_cast<int>(c), second_stage);
      const int replica = classes_.members[c].front();
      const auto gpu = [&](int tensor, int of, int stage) {
        return ranks_.gpu(ranks_.rank({tensor, 0, of, stage}));
      };
      const std::vector<GpuId> pair{gpu(t, replica, first_stage), gpu(t, replica, second_stage)};
      const CollectiveChoice choice =
          nccl_choice(CollectiveKind::AllReduce, communicator_shape(cluster_, pair), bytes);
      Task task;
      task.kind = TaskKind::Comm;
      task.comm = CommKind::Data;
      task.stream = Stream::Data;
      task.device = add_group({device(first, t), device(last, t)});
      task.label = labels_.of(label);
      task.bytes = task.rank_bytes = bytes;
      const std::string name = "copies " + std::to_string(c) + " " + std::to_string(first_stage) +
                               " " + std::to_string(t);
      task.seconds =
          is_local(cluster_, pair)
              ? choice.seconds(bytes)
              : latency_before_flows(name, pair, CollectiveKind::AllReduce, choice, bytes);
      if (!is_local(cluster_, pair))
        task.payload = pattern(name, [&] {
          std::vector<PhysicalFlow> flows;  // two ranks: each sends the other all bytes
          for (const int of : classes_.members[c])
            for (const int tensor : tensor_members(t)) {
              flows.push_back({gpu(tensor, of, first_stage), gpu(tensor, of, second_stage)});
              flows.push_back({gpu(tensor, of, second_stage), gpu(tensor, of, first_stage)});
            }
          return flows;
        });
      const std::int32_t id = add_task(task);
      for (StageUnit* end : {&first, &last}) {
        const std::int32_t before = whole_team(end->stage, t).tail;
        const std::int32_t compute =
            end->open_comm >= 0 ? end->open_comm : end->tail[static_cast<std::size_t>(t)];
        edges_.add(compute, id);
        if (before >= 0) edges_.add(before, id);
        if (const std::int32_t reduced = end->last_reduction[static_cast<std::size_t>(t)];
            reduced >= 0)
          edges_.add(reduced, id);
        end->copy_reduction.push_back(id);
      }
    }
}

std::int32_t Lowering::add_step_compute(StageUnit& u, int t, std::int32_t segment,
                                        const char* label) {
  Piece piece;
  piece.segment = segment;
  return add_compute(u, t, piece, labels_.of(label), -1, -1);
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
  if (plan_.zero == 0) return stage_parameters(u);
  return (stage_parameters(u) - experts) / shard_ranks(plan_) + experts / expert_copies(plan_);
}

std::vector<SegmentItem> Lowering::optimizer_items(const StageUnit& u, bool norm) {
  const double parameters = stage_parameters(u), owned = owned_parameters(u);
  const CostModel& costs = *in_.cost_models[static_cast<std::size_t>(kinds_[u.kind].group)];
  std::vector<SegmentItem> items;
  for (const Operator& op :
       optimizer_operators(parameters, owned, plan_.precision, plan_.gradient_precision)) {
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
        plan_.tp;
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
  task.seconds =
      nccl_choice(CollectiveKind::AllReduce, communicator_shape(cluster_, gpus), kScalarBytes)
          .seconds(kScalarBytes);
  return add_task(task);
}

std::vector<std::int32_t> Lowering::emit_gradient_norm() {
  // The norm is summed over all ranks that hold different gradients: tensor and pipeline ranks of
  // a replica, and with sharded gradients the data ranks too.
  std::vector<std::int32_t> control(classes_.members.size(), -1);
  const bool across_replicas = plan_.zero > 0 && plan_.dp > 1;
  std::vector<std::int32_t> devices, all_devices;
  std::vector<GpuId> gpus;
  for (std::size_t c = 0; c < classes_.members.size(); ++c) {
    if (!across_replicas) devices.clear(), gpus.clear();
    for (int stage = 0; stage < plan_.pp; ++stage) {
      const StageUnit& u = unit(static_cast<int>(c), stage);
      for (int t = 0; t < tensor_devices_; ++t) devices.push_back(device(u, t));
      for (const int replica : classes_.members[c]) {
        if (!across_replicas && replica != classes_.members[c].front()) continue;
        for (const GpuId gpu : tensor_group(replica, stage)) gpus.push_back(gpu);
      }
    }
    if (!across_replicas && gpus.size() > 1) control[c] = add_control(devices, gpus);
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
    for (int t = 0; t < tensor_devices_; ++t) {
      const std::int32_t on_host = plan_.offload.gradients ? add_host_norm(u, t) : -1;
      const std::int32_t id = add_step_compute(u, t, norm, "gradient norm");
      if (on_host >= 0) edges_.add(on_host, id);
      if (whole_team(u.stage, t).tail >= 0) edges_.add(whole_team(u.stage, t).tail, id);
      if (u.last_reduction[static_cast<std::size_t>(t)] >= 0)
        edges_.add(u.last_reduction[static_cast<std::size_t>(t)], id);
      if (!u.copy_reduction.empty()) edges_.add(u.copy_reduction[static_cast<std::size_t>(t)], id);
    }
    u.open_comm = -1;
  }
  const std::vector<std::int32_t> control = emit_gradient_norm();
  for (StageUnit& u : units_)
    for (int t = 0; t < tensor_devices_; ++t) {
      const std::int32_t sum = control[static_cast<std::size_t>(u.replica_class)];
      if (sum >= 0) edges_.add(u.tail[static_cast<std::size_t>(t)], sum);
    }
  for (std::size_t i = 0; i < units_.size(); ++i)
    for (int t = 0; t < tensor_devices_; ++t) {
      StageUnit& u = units_[i];
      const std::int32_t sum = control[static_cast<std::size_t>(u.replica_class)];
      const std::int32_t normed = sum >= 0 ? sum : u.tail[static_cast<std::size_t>(t)];
      const std::int32_t on_host = plan_.offload.optimizer ? add_host_update(u, t, normed) : -1;
      const std::int32_t id = add_step_compute(u, t, segments[i].update_segment, "update");
      if (sum >= 0) edges_.add(sum, id);
      if (on_host >= 0) edges_.add(on_host, id);
    }
  emit_parameter_gathers();
  if (averages_weights()) emit_weight_averages();
  wrap_gathers();
  for (StageUnit& u : units_)
    for (std::size_t t = 0; t < u.tail.size(); ++t) edges_.add_wrap(u.tail[t], u.first_task[t]);
}

double Lowering::parameter_bytes() const {
  // fp8 plans keep, and gather, bf16 parameters.
  return bytes_of(plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision);
}

double Lowering::gather_bytes(int stage, int chunk, int bucket) const {
  const ChunkProgram& program =
      kinds_[units_[static_cast<std::size_t>(stage)].kind].chunks[program_of(stage, chunk)];
  const auto at = static_cast<std::size_t>(bucket);
  const double whole = program.bucket_parameters[at] * parameter_bytes();
  if (!plan_.fp8.gathers) return whole;
  return whole - program.bucket_fp8_parameters[at] * (parameter_bytes() - bytes_of(Precision::Fp8));
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
      edges_.add(u.tail[static_cast<std::size_t>(t)], id);
      const std::int32_t reader =
          u.bucket_reader[chunk][bucket * static_cast<std::size_t>(tensor_devices_) +
                                 static_cast<std::size_t>(t)];
      if (plan_.overlap.parameters && reader >= 0) edges_.add_wrap(team.tail, reader);
    }
  }
}

void Lowering::emit_parameter_gathers() {
  if (plan_.dp == 1 || plan_.zero == 0 || plan_.zero == 3) return;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      std::vector<DataTeam> teams = data_teams(stage, t, shard_ranks(plan_), false);
      for (DataTeam& team : teams) {
        team.tail = whole_team(stage, t).tail;
        gather_parameters(stage, t, team, false);
      }
      std::vector<DataTeam> of_experts = expert_data_teams(stage, t);
      for (DataTeam& team : of_experts) {
        team.tail = teams.front().tail;
        gather_parameters(stage, t, team, true);
        teams.push_back(team);
      }
      if (plan_.overlap.parameters) continue;
      std::map<int, std::vector<std::int32_t>> tails;  // by class
      for (const DataTeam& team : teams)
        for (const int c : team.classes)
          if (team.tail >= 0) tails[c].push_back(team.tail);
      for (const auto& [c, ends] : tails) {
        const std::int32_t end =
            add_step_compute(unit(c, stage), t, empty_segment_, "parameters gathered");
        for (const std::int32_t tail : ends) edges_.add(tail, end);
      }
    }
}

}  // namespace rehearse
