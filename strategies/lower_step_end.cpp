#include <algorithm>

#include "plan/ensure.h"
#include "strategies/lowering.h"

namespace rehearse {

void Lowering::make_data_streams() {
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      DataStream stream;
      for (std::size_t c = 0; c < classes_.members.size(); ++c)
        stream.devices.push_back(device(unit(static_cast<int>(c), stage), t));
      stream.gpus = data_group(stage, t);
      stream.is_local = is_local(cluster_, stream.gpus);
      data_streams_.push_back(std::move(stream));
    }
}

std::int32_t Lowering::add_data_collective(int stage, int t, CollectiveKind kind, CommKind comm,
                                           double bytes, const char* label) {
  DataStream& stream = data_stream(stage, t);
  const CollectiveChoice choice =
      nccl_choice(kind, communicator_shape(cluster_, stream.gpus), bytes);
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = comm;
  task.stream = Stream::Data;
  task.overlaps = comm == CommKind::Data ? plan_.overlap.gradients : plan_.overlap.parameters;
  task.device = add_group(stream.devices);
  task.label = labels_.of(label);
  task.bytes = bytes;
  // What a rank hands over: the whole buffer of a reduction, its own shard of a gather.
  task.rank_bytes = kind == CollectiveKind::AllGather ? bytes / plan_.dp : bytes;
  const std::string name = "data " + std::to_string(stage) + " " + std::to_string(t) + " " +
                           collective_name(kind) + " " + algorithm_name(choice.algorithm);
  const double latency_s = stream.is_local
                               ? choice.seconds(bytes)
                               : latency_before_flows(name, stream.gpus, kind, choice, bytes);
  task.seconds = latency_s;
  // Trees pipeline small chunks; only rings have steps worth simulating one by one.
  const bool stepwise = options_.collectives == CollectiveDetail::Stepwise && !stream.is_local &&
                        choice.algorithm == CollectiveAlgorithm::Ring;
  if (stepwise) task.seconds = 0;
  if (!stream.is_local && !stepwise) {
    task.payload = pattern(name, [&] {
      std::vector<PhysicalFlow> flows;
      for (const int tensor : tensor_members(t))
        for (const PhysicalFlow& flow :
             collective_flows(cluster_, data_group(stage, tensor), kind, choice.algorithm))
          flows.push_back(flow);
      return flows;
    });
  }
  const GpuSpec& gpu = cluster_.gpu(stream.gpus.front());
  double& share = out_.compute_share[static_cast<std::size_t>(comm)];
  share = std::max(
      share, static_cast<double>(choice.channels) / std::max(1, gpu.streaming_multiprocessors));
  const std::int32_t id = add_task(task);
  if (stream.tail >= 0) edges_.add(stream.tail, id);
  stream.tail = stepwise ? add_ring_steps(stage, t, kind, latency_s, id) : id;
  return id;
}

void Lowering::emit_gradient_reductions() {
  if (plan_.dp == 1) return;
  const CollectiveKind kind =
      plan_.zero > 0 ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce;
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t)
      for (const auto& [chunk, bucket] : unit(0, stage).bucket_order) {
        const StageUnit& first = unit(0, stage);
        const double parameters = kinds_[first.kind]
                                      .chunks[static_cast<std::size_t>(chunk * plan_.pp + stage)]
                                      .bucket_parameters[static_cast<std::size_t>(bucket)];
        if (parameters <= 0) continue;
        const std::int32_t id =
            add_data_collective(stage, t, kind, CommKind::Data, parameters * gradient_bytes(),
                                plan_.zero > 0 ? "gradient reduce-scatter" : "gradient all-reduce");
        for (std::size_t c = 0; c < classes_.members.size(); ++c) {
          const StageUnit& u = unit(static_cast<int>(c), stage);
          const std::size_t at = static_cast<std::size_t>(bucket * tensor_devices_ + t);
          const std::int32_t own = u.tail[static_cast<std::size_t>(t)];
          const std::int32_t end = u.open_comm >= 0 ? u.open_comm : own;
          // Without overlap the reduction starts when all backwards are done.
          edges_.add(
              plan_.overlap.gradients ? u.bucket_ready[static_cast<std::size_t>(chunk)][at] : end,
              id);
        }
      }
}

void Lowering::emit_tied_embedding_reduction() {
  // First and last stage each hold the tied table; their gradients are summed (Megatron-LM,
  // finalize_model_grads) after the data-parallel reduction.
  if (!in_.model.tied_embeddings || plan_.pp == 1) return;
  const double bytes = embedding_parameters_per_rank(shape_) * gradient_bytes();
  for (std::size_t c = 0; c < classes_.members.size(); ++c)
    for (int t = 0; t < tensor_devices_; ++t) {
      StageUnit& first = unit(static_cast<int>(c), 0);
      StageUnit& last = unit(static_cast<int>(c), plan_.pp - 1);
      const int replica = classes_.members[c].front();
      const auto gpu = [&](int tensor, int of, int stage) {
        return ranks_.gpu(ranks_.rank({tensor, 0, of, stage}));
      };
      const std::vector<GpuId> pair{gpu(t, replica, 0), gpu(t, replica, plan_.pp - 1)};
      const CollectiveChoice choice =
          nccl_choice(CollectiveKind::AllReduce, communicator_shape(cluster_, pair), bytes);
      Task task;
      task.kind = TaskKind::Comm;
      task.comm = CommKind::Data;
      task.stream = Stream::Data;
      task.device = add_group({device(first, t), device(last, t)});
      task.label = labels_.of("tied embedding all-reduce");
      task.bytes = task.rank_bytes = bytes;
      task.seconds = is_local(cluster_, pair) ? choice.seconds(bytes) : choice.latency_s;
      if (!is_local(cluster_, pair))
        task.payload = pattern("embedding " + std::to_string(c) + " " + std::to_string(t), [&] {
          std::vector<PhysicalFlow> flows;  // two ranks: each sends the other the whole table
          for (const int of : classes_.members[c])
            for (const int tensor : tensor_members(t)) {
              flows.push_back({gpu(tensor, of, 0), gpu(tensor, of, plan_.pp - 1)});
              flows.push_back({gpu(tensor, of, plan_.pp - 1), gpu(tensor, of, 0)});
            }
          return flows;
        });
      const std::int32_t id = add_task(task);
      for (StageUnit* end : {&first, &last}) {
        const std::int32_t before = data_stream(end->stage, t).tail;
        const std::int32_t compute =
            end->open_comm >= 0 ? end->open_comm : end->tail[static_cast<std::size_t>(t)];
        edges_.add(compute, id);
        if (before >= 0) edges_.add(before, id);
        end->embedding_reduction.push_back(id);
      }
    }
}

std::int32_t Lowering::add_step_compute(StageUnit& u, int t, std::int32_t segment,
                                        const char* label) {
  Piece piece;
  piece.segment = segment;
  return add_compute(u, t, piece, labels_.of(label), -1, -1);
}

std::vector<SegmentItem> Lowering::optimizer_items(const StageUnit& u, bool norm) {
  double parameters = 0;
  for (int v = 0; v < plan_.virtual_stages; ++v)
    parameters +=
        kinds_[u.kind].chunks[static_cast<std::size_t>(v * plan_.pp + u.stage)].parameters();
  const double owned = plan_.zero > 0 ? parameters / plan_.dp : parameters;
  const CostModel& costs = *in_.cost_models[static_cast<std::size_t>(kinds_[u.kind].group)];
  std::vector<SegmentItem> items;
  for (const Operator& op :
       optimizer_operators(parameters, owned, plan_.precision, plan_.gradient_precision)) {
    if ((op.name == OperatorName::GradientNorm) != norm) continue;
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
      const std::int32_t id = add_step_compute(u, t, norm, "gradient norm");
      if (data_stream(u.stage, t).tail >= 0) edges_.add(data_stream(u.stage, t).tail, id);
      if (!u.embedding_reduction.empty())
        edges_.add(u.embedding_reduction[static_cast<std::size_t>(t)], id);
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
      const std::int32_t id = add_step_compute(u, t, segments[i].update_segment, "update");
      if (sum >= 0) edges_.add(sum, id);
    }
  emit_parameter_gathers();
  for (StageUnit& u : units_)
    for (std::size_t t = 0; t < u.tail.size(); ++t) edges_.add_wrap(u.tail[t], u.first_task[t]);
}

void Lowering::emit_parameter_gathers() {
  if (plan_.zero == 0 || plan_.dp == 1) return;
  // fp8 plans keep, and gather, bf16 parameters.
  const double parameter_bytes =
      bytes_of(plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision);
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      // The forward of the next step asks for buckets in the reverse of the backward's order.
      const auto& completed = unit(0, stage).bucket_order;
      for (auto at = completed.rbegin(); at != completed.rend(); ++at) {
        const auto chunk = static_cast<std::size_t>(at->first);
        const auto bucket = static_cast<std::size_t>(at->second);
        const double parameters = kinds_[unit(0, stage).kind]
                                      .chunks[chunk * static_cast<std::size_t>(plan_.pp) +
                                              static_cast<std::size_t>(stage)]
                                      .bucket_parameters[bucket];
        if (parameters <= 0) continue;
        const std::int32_t id =
            add_data_collective(stage, t, CollectiveKind::AllGather, CommKind::Parameter,
                                parameters * parameter_bytes, "parameter all-gather");
        for (std::size_t c = 0; c < classes_.members.size(); ++c) {
          StageUnit& u = unit(static_cast<int>(c), stage);
          edges_.add(u.tail[static_cast<std::size_t>(t)], id);
          const std::int32_t reader =
              u.bucket_reader[chunk][bucket * static_cast<std::size_t>(tensor_devices_) +
                                     static_cast<std::size_t>(t)];
          if (plan_.overlap.parameters && reader >= 0)
            edges_.add_wrap(data_stream(stage, t).tail, reader);
        }
      }
      if (plan_.overlap.parameters) continue;
      for (std::size_t c = 0; c < classes_.members.size(); ++c) {
        StageUnit& u = unit(static_cast<int>(c), stage);
        const std::int32_t end = add_step_compute(u, t, empty_segment_, "parameters gathered");
        if (data_stream(stage, t).tail >= 0) edges_.add(data_stream(stage, t).tail, end);
      }
    }
}

}  // namespace rehearse
