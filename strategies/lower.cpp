#include "strategies/lower.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "kernels/part_label.h"
#include "plan/ensure.h"
#include "plan/plan_schedule.h"
#include "strategies/fluid_time.h"
#include "strategies/lowering.h"
#include "strategies/tensor_grid.h"

namespace rehearse {

Lowering::Lowering(const LoweringInput& input, const LoweringOptions& options)
    : in_(input),
      plan_(input.plan),
      cluster_(input.cluster),
      options_(options),
      ranks_(input.plan),
      shape_(layer_shape(input.model, input.plan, input.workload.seq_len, input.workload.routing)),
      load_(attention_load(input.model, input.plan, input.workload)),
      chunk_layers_(chunk_layers(input.plan, input.model.layers)),
      group_of_node_(group_of_nodes(input.cluster)),
      labels_(out_.graph.labels) {
  ensure(ranks_.size() <= cluster_.gpu_count(), "the plan was checked against the cluster");
  ensure(in_.cost_models.size() == cluster_.spec().groups.size() || cluster_.spec().groups.empty(),
         "one cost model a node group");
  // Replicas are not alike where a server's node gets more traffic than others, beside their own.
  const bool alike =
      !has_servers() || (plan_.pp == 1 && plan_.updates.synchrony == Synchrony::Synchronous &&
                         is_local(cluster_, tensor_group(0, 0, 0)));
  classes_ = options.fidelity == Fidelity::Folded && alike ? fold_replicas(cluster_, plan_, ranks_)
                                                           : separate_replicas(plan_.dp);
  tensor_devices_ = options.fidelity == Fidelity::Full ? plan_.tp : 1;
  // Context ranks of an unbalanced ring have different work.
  const bool balanced = plan_.context_balanced;
  context_devices_ = options.fidelity == Fidelity::Full || !balanced ? plan_.cp : 1;
  unit_devices_ = tensor_devices_ * context_devices_;
  // Megatron-LM's default bucket: 40 million parameters, or one million a data rank if more
  // (megatron/core/distributed/distributed_data_parallel.py).
  bucket_parameters_ = plan_.bucket_bytes > 0 ? plan_.bucket_bytes / gradient_bytes()
                                              : std::max(40e6, 1e6 * plan_.dp);
  if (plan_.zero == 3) bucket_parameters_ = 0;  // FSDP wraps, gathers and reduces layer by layer
}

std::vector<GpuId> Lowering::tensor_group(int replica, int context, int stage) const {
  std::vector<GpuId> gpus;
  for (int tensor = 0; tensor < plan_.tp; ++tensor)
    gpus.push_back(gpu({tensor, context}, replica, stage));
  return gpus;
}

std::vector<std::vector<GpuId>> Lowering::tensor_groups(const std::vector<int>& replicas,
                                                        int context, int stage, CommGroup group,
                                                        int part) const {
  std::vector<std::vector<GpuId>> groups;
  for (const int replica : replicas)
    for (const int member : context_members(context)) {
      const auto parts = grid_parts(group, tensor_group(replica, member, stage), plan_.tensor_rows);
      if (part < 0)
        groups.insert(groups.end(), parts.begin(), parts.end());
      else
        groups.push_back(parts[static_cast<std::size_t>(part)]);
    }
  return groups;
}

std::vector<GpuId> Lowering::gpus_of(int stage, int tensor,
                                     const std::vector<DataRank>& ranks) const {
  std::vector<GpuId> gpus;
  for (const DataRank& rank : ranks)
    gpus.push_back(gpu({tensor, rank.context}, rank.replica, stage));
  return gpus;
}

std::vector<int> Lowering::tensor_members(int t) const {
  if (tensor_devices_ > 1 || plan_.tp == 1) return {t};
  std::vector<int> all(static_cast<std::size_t>(plan_.tp));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

std::vector<int> Lowering::context_members(int c) const {
  if (context_devices_ > 1 || plan_.cp == 1) return {c};
  std::vector<int> all(static_cast<std::size_t>(plan_.cp));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

std::vector<InnerRank> Lowering::inner_ranks(int d) const {
  std::vector<InnerRank> ranks;
  for (const int context : context_members(d / tensor_devices_))
    for (const int tensor : tensor_members(d % tensor_devices_)) ranks.push_back({tensor, context});
  return ranks;
}

void Lowering::make_schedules() {
  for (const std::vector<int>& members : classes_.members) {
    const auto replica = static_cast<std::size_t>(members.front());
    const int count = plan_.replica_micro_batches.empty() ? in_.schedule.micro_batches
                                                          : plan_.replica_micro_batches[replica];
    if (count == in_.schedule.micro_batches) {
      class_schedules_.push_back(&in_.schedule);
      continue;
    }
    const auto [at, is_new] = uneven_schedules_.try_emplace(count);
    if (is_new) at->second = plan_schedule(plan_, count);
    class_schedules_.push_back(&at->second);
  }
}

void Lowering::make_devices() {
  out_.device_of_rank.assign(static_cast<std::size_t>(ranks_.size()), -1);
  for (std::size_t c = 0; c < classes_.members.size(); ++c)
    for (int stage = 0; stage < plan_.pp; ++stage) {
      const std::vector<int>& replicas = classes_.members[c];
      StageUnit made;
      made.replica_class = static_cast<int>(c);
      made.stage = stage;
      made.first_device = static_cast<std::int32_t>(out_.graph.devices.size());
      for (int d = 0; d < unit_devices_; ++d) {
        const std::vector<InnerRank> inner = inner_ranks(d);
        Device device;
        device.representative =
            ranks_.rank({inner.front().tensor, inner.front().context, replicas.front(), stage});
        device.stage = stage;
        device.replica = replicas.front();
        device.members = 0;
        for (const InnerRank& at : inner)
          for (const int replica : replicas) {
            const Rank rank = ranks_.rank({at.tensor, at.context, replica, stage});
            out_.device_of_rank[static_cast<std::size_t>(rank.value)] =
                static_cast<std::int32_t>(out_.graph.devices.size());
            ++device.members;
          }
        out_.graph.devices.push_back(device);
      }
      const auto devices = static_cast<std::size_t>(unit_devices_);
      made.tail.assign(devices, -1);
      made.awaited.resize(devices);
      made.beside.resize(devices);
      made.first_task.assign(devices, -1);
      made.last_reduction.assign(devices, -1);
      units_.push_back(std::move(made));
    }
  for (StageUnit& u : units_) u.kind = unit_kind(u.replica_class, u.stage);
  set_speeds();
}

ChunkExtent Lowering::extent_of(int chunk) const {
  ChunkExtent extent;
  extent.first_layer = std::accumulate(chunk_layers_.begin(), chunk_layers_.begin() + chunk, 0);
  extent.layer_count = chunk_layers_[static_cast<std::size_t>(chunk)];
  extent.has_embedding = chunk == 0;
  extent.has_head = chunk == last_chunk();
  extent.head_has_table = !in_.model.tied_embeddings || !ends_meet(in_.schedule);
  extent.mtp_has_table = mtp_has_table(in_.model, in_.schedule);
  return extent;
}

std::size_t Lowering::unit_kind(int replica_class, int stage) {
  const int replica = classes_.members[static_cast<std::size_t>(replica_class)].front();
  int slowest = -1, nodes = 1;
  bool local = true;
  for (int context = 0; context < plan_.cp; ++context) {
    const std::vector<GpuId> group = tensor_group(replica, context, stage);
    local = local && is_local(cluster_, group);
    // The slowest GPU of the group sets the pace of its operators.
    for (const GpuId gpu : group) {
      const int candidate = group_of_node_[static_cast<std::size_t>(cluster_.node_of(gpu))];
      if (slowest < 0 ||
          cluster_.gpu(gpu).bf16_flops <
              cluster_.spec().groups[static_cast<std::size_t>(slowest)].node.gpu.bf16_flops)
        slowest = candidate;
    }
    nodes = std::max(nodes, local ? 1 : communicator(group).nodes);
  }
  const auto [at, is_new] =
      kind_index_.try_emplace(std::tuple{slowest, local, nodes}, kinds_.size());
  if (is_new) {
    UnitKind kind;
    kind.group = slowest;
    kind.is_local = local;
    make_programs(kind, replica_class, stage);
    kinds_.push_back(std::move(kind));
  }
  return at->second;
}

CommunicatorShape Lowering::communicator(const std::vector<GpuId>& ranks) const {
  CommunicatorShape shape = communicator_shape(cluster_, ranks);
  const int group = group_of_node_[static_cast<std::size_t>(cluster_.node_of(ranks.front()))];
  shape.measured = &in_.cost_models[static_cast<std::size_t>(group)]->collectives();
  return shape;
}

double Lowering::latency_before_flows(const std::string& name, const std::vector<GpuId>& group,
                                      CollectiveKind kind, const CollectiveChoice& choice,
                                      double bytes) {
  const auto [at, is_new] = idle_seconds_per_byte_.try_emplace(name, 0.0);
  if (is_new)
    at->second =
        fluid_seconds_per_byte(cluster_, collective_flows(cluster_, group, kind, choice.algorithm));
  return std::max(choice.latency_s, choice.seconds(bytes) - bytes * at->second);
}

double Lowering::tensor_seconds(const std::vector<int>& replicas, int stage,
                                const LayerItem& item) {
  const std::vector<GpuId> group =
      grid_parts(item.group, tensor_group(replicas.front(), 0, stage), plan_.tensor_rows).front();
  const CollectiveChoice choice = nccl_choice(item.collective, communicator(group), item.bytes);
  if (is_local(cluster_, group)) return choice.seconds(item.bytes);
  const std::string name = group_name(item.group) + (" " + std::to_string(replicas.front())) + " " +
                           std::to_string(stage) + " " + collective_name(item.collective) + " " +
                           algorithm_name(choice.algorithm);
  const double latency_s = latency_before_flows(name, group, item.collective, choice, item.bytes);
  const auto [at, is_new] = idle_seconds_per_byte_.try_emplace("all " + name, 0.0);
  if (is_new) {
    std::vector<PhysicalFlow> flows;
    for (const std::vector<GpuId>& gpus : tensor_groups(replicas, 0, stage, item.group, -1))
      for (const PhysicalFlow& flow :
           collective_flows(cluster_, gpus, item.collective, choice.algorithm))
        flows.push_back(flow);
    at->second = fluid_seconds_per_byte(cluster_, flows);
  }
  return latency_s + item.bytes * at->second;
}

void Lowering::make_programs(UnitKind& kind, int replica_class, int stage) {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(replica_class)];
  const CollectiveSeconds seconds = [&](const LayerItem& item) {
    // Collectives of context ranks and among experts are tasks of their own.
    if (plan_.tp == 1 || !is_tensor(item.group)) return 0.0;
    return tensor_seconds(replicas, stage, item);
  };
  for (int context = 0; context < context_variants(); ++context) {
    LayerShape shape = shape_;
    shape.context_rank = context;
    shape.pair_share = load_.shares[static_cast<std::size_t>(context)];
    const StageProgrammer programmer(shape, *in_.cost_models[static_cast<std::size_t>(kind.group)],
                                     seconds, labels_, load_.heaviest);
    for (int chunk = 0; chunk <= last_chunk(); ++chunk)
      kind.chunks.push_back(programmer.chunk(extent_of(chunk), bucket_parameters_));
  }
  out_.pricing_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::int32_t Lowering::add_task(const Task& task) {
  out_.graph.tasks.push_back(task);
  return static_cast<std::int32_t>(out_.graph.tasks.size() - 1);
}

std::int32_t Lowering::add_group(const std::vector<std::int32_t>& devices) {
  const auto [at, is_new] =
      group_index_.try_emplace(devices, static_cast<std::int32_t>(out_.graph.groups.size()));
  if (is_new) {
    auto& members = out_.graph.group_devices;
    out_.graph.groups.push_back(
        {static_cast<std::int32_t>(members.size()), static_cast<std::int32_t>(devices.size())});
    members.insert(members.end(), devices.begin(), devices.end());
  }
  return at->second;
}

void Lowering::add_totals() {
  PricedTotals totals;
  // With both ways through the pipeline, each copy of a piece serves half of the micro-batches.
  const double ways = in_.schedule.placement == Placement::BothWays ? 2 : 1;
  for (const StageUnit& u : units_) {
    const double micro_batches_a_chunk = schedule_of(u.replica_class).micro_batches / ways;
    const auto replicas =
        static_cast<double>(classes_.members[static_cast<std::size_t>(u.replica_class)].size());
    for (int c = 0; c < context_variants(); ++c)
      for (int v = 0; v < in_.schedule.chunks; ++v)
        totals.add(
            kinds_[u.kind]
                .chunks[static_cast<std::size_t>(c * (last_chunk() + 1)) + program_of(u.stage, v)]
                .totals,
            replicas * plan_.tp * (plan_.cp / context_variants()) * micro_batches_a_chunk);
  }
  out_.executed_flops += totals.flops;
  for (std::size_t i = 0; i < totals.seconds_by_source.size(); ++i)
    out_.seconds_by_source[i] += totals.seconds_by_source[i];
}

LoweredStep Lowering::run() {
  empty_segment_ = add_segment(out_.graph, {}, 0);
  make_schedules();
  make_devices();
  index_actions();
  for (StageUnit& u : units_) emit_actions(u);
  for (StageUnit& u : units_) emit_transfers(u);
  make_data_teams();
  emit_gradient_reductions();
  emit_sharded_traffic();
  emit_offload();
  if (has_servers()) {
    emit_server_step_end();  // copies of parameters meet on the servers
  } else {
    emit_copy_reductions();
    emit_step_end();
  }
  add_totals();
  state_assumptions();
  FlowFolding(cluster_, patterns_, options_.fidelity != Fidelity::Full).write_to(out_.graph);
  edges_.finish(out_.graph);
  return std::move(out_);
}

LoweredStep lower(const LoweringInput& input, const LoweringOptions& options) {
  ensure(input.plan.dp > 0, "the plan was resolved and checked");
  return Lowering(input, options).run();
}

}  // namespace rehearse
