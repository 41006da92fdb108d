// What lies in host memory. Three streams of a device's rank go to and fro: copies to the host,
// copies from it, and the host's own work. A copy takes bytes over the slower of the GPU's PCIe
// link and its share of the host's memory bandwidth; the host's Adam is bound by that share too
// (ZeRO-Offload, Ren et al. 2021, arXiv 2101.06840, §5). Copy engines take no multiprocessors.

#include <algorithm>
#include <map>

#include "strategies/flow_folding.h"
#include "strategies/lowering.h"

namespace rehearse {
namespace {

/// What STREAM reaches of a two-socket server's nominal memory bandwidth: 75 to 85 %.
constexpr double kSustainedShare = 0.8;
/// Of a server that does not say: two sockets of eight channels DDR4-3200.
constexpr double kUsualBandwidth_bytes_per_s = 409.6e9;
/// Adding gradients to their sum in host memory: both are read, one is written.
constexpr double kAccumulateTraffic = 3;

}  // namespace

HostRates host_rates(const NodeSpec& node) {
  const double nominal = node.host_memory_bandwidth_bytes_per_s > 0
                             ? node.host_memory_bandwidth_bytes_per_s
                             : kUsualBandwidth_bytes_per_s;
  HostRates rates;
  rates.memory_bytes_per_s = kSustainedShare * nominal / node.gpus;
  rates.copy_bytes_per_s =
      std::min(node.gpu.pcie_bandwidth_bytes_per_s * payload_efficiency(LinkKind::PcieUp),
               rates.memory_bytes_per_s);
  return rates;
}

HostRates Lowering::host_rates_of(const StageUnit& u) const {
  return host_rates(cluster_.spec().groups.at(static_cast<std::size_t>(kinds_[u.kind].group)).node);
}

std::int32_t Lowering::add_host_task(StageUnit& u, int d, const HostCall& call) {
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Host;
  task.stream = call.stream;
  task.overlaps = true;
  task.device = add_group({device(u, d)});
  task.label = labels_.of(call.label);
  task.seconds = call.seconds;
  task.bytes = task.rank_bytes = call.stream == Stream::Host ? 0 : call.bytes;
  const std::int32_t id = add_task(task);
  const auto [tail, is_first] = u.host_tails.try_emplace({call.stream, d}, id);
  if (!is_first) edges_.add(tail->second, id);
  tail->second = id;
  return id;
}

/// Notes that a task works on a layer.
void Lowering::visit_layer(StageUnit& u, const ActionAt& at, int d, std::int32_t layer,
                           std::int32_t task) {
  const Action& action = actions_of(u)[at.index];
  const auto is_here = [&](const LayerVisit& visit) {
    return visit.micro_batch == action.micro_batch && visit.kind == action.kind &&
           visit.chunk == action.chunk;
  };
  const auto own = static_cast<std::size_t>(d);
  // The device's last visit of the action, or the next one that another device has noted.
  auto found = u.layer_visits.end();
  while (found != u.layer_visits.begin() && is_here(*(found - 1))) {
    --found;
    if (found->first[own] >= 0) break;
  }
  while (found != u.layer_visits.end() && found->layer != layer) ++found;
  if (found == u.layer_visits.end()) {
    const std::vector<std::int32_t> none(static_cast<std::size_t>(unit_devices_), -1);
    u.layer_visits.push_back({layer, action.micro_batch, action.chunk, action.kind, none, none});
    found = u.layer_visits.end() - 1;
  }
  if (found->first[own] < 0) found->first[own] = task;
  found->last[own] = task;
}

/// Saved activations of each layer leave after its forward and come back before its backward, the
/// next layer's beside the one at work. Two layers' worth are under way at most: a layer waits for
/// the copy of the one before the last. What is used again at once stays.
void Lowering::plan_activation_copies(StageUnit& u, int d, std::vector<HostCopy>& copies) {
  const auto at = static_cast<std::size_t>(d);
  const HostRates rates = host_rates_of(u);
  std::vector<std::size_t> left;  // forward visits whose copies were made, in order
  std::map<std::tuple<int, int, int>, std::size_t> store_of;
  const auto& visits = u.layer_visits;
  const auto same = [&](std::size_t a, std::size_t b) {
    return visits[a].layer == visits[b].layer && visits[a].micro_batch == visits[b].micro_batch &&
           visits[a].chunk == visits[b].chunk;
  };
  for (std::size_t i = 0; i < visits.size(); ++i) {
    const LayerVisit& visit = visits[i];
    if (visit.layer < 0 || visit.kind == ActionKind::WeightGradient) continue;
    const bool forward = visit.kind == ActionKind::Forward;
    std::size_t beside = i;  // the layer after this forward, or before this backward
    do {
      beside += forward ? 1 : std::size_t{0} - 1;
    } while (beside < visits.size() && visits[beside].layer < 0);
    if (beside < visits.size() && same(i, beside)) continue;
    const std::tuple key{visit.chunk, visit.micro_batch, visit.layer};
    HostCopy copy;
    copy.bytes = plan_.offload.activations * saved_bytes(u, visit.chunk, visit.layer);
    if (copy.bytes <= 0) continue;
    copy.seconds = copy.bytes / rates.copy_bytes_per_s;
    if (forward) {
      copy.after = {visit.last[at]};
      copy.order = visit.last[at];
      copy.label = "activations to host";
      if (left.size() >= 2) copies[left[left.size() - 2]].before.push_back(visit.first[at]);
      left.push_back(copies.size());
      store_of[key] = copies.size();
    } else {
      copy.from_host = true;
      copy.order = visit.first[at];
      copy.label = "activations from host";
      if (i >= 2) copy.after.push_back(visits[i - 2].last[at]);
      copy.after_copy = static_cast<std::int32_t>(store_of.at(key));
      copy.before = {visit.first[at]};
    }
    copies.push_back(copy);
  }
}

/// Gradients go as soon as they are reduced (or, with one data rank, made).
void Lowering::plan_gradient_copies(StageUnit& u, int d, std::vector<HostCopy>& copies) {
  const auto at = static_cast<std::size_t>(d);
  const HostRates rates = host_rates_of(u);
  for (std::size_t i = 0; i < u.visits.size(); ++i) {
    const BucketVisit& visit = u.visits[i];
    if (visit.kind != ActionKind::Backward && visit.kind != ActionKind::WeightGradient) continue;
    HostCopy copy;
    copy.bytes =
        bucket_size(u.stage, visit.chunk, visit.bucket) * gradient_bytes() / sharing_ranks();
    if (copy.bytes <= 0) continue;
    const double added_s = schedule_of(u.replica_class).micro_batches > 1
                               ? kAccumulateTraffic * copy.bytes / rates.memory_bytes_per_s
                               : 0;
    copy.seconds = std::max(copy.bytes / rates.copy_bytes_per_s, added_s);
    copy.order = visit.last[at];
    copy.after = {visit.last[at]};
    if (const auto reduced = u.visit_reduction.find({i, d}); reduced != u.visit_reduction.end())
      copy.after.push_back(reduced->second);
    copy.label = "gradients to host";
    copies.push_back(copy);
  }
}

void Lowering::emit_offload() {
  if (!plan_.offload.gradients && plan_.offload.activations <= 0) return;
  for (StageUnit& u : units_)
    for (int d = 0; d < unit_devices_; ++d) {
      std::vector<HostCopy> copies;
      if (plan_.offload.activations > 0) plan_activation_copies(u, d, copies);
      const auto activations = static_cast<std::ptrdiff_t>(copies.size());
      if (plan_.offload.gradients) plan_gradient_copies(u, d, copies);
      // Both kinds share the way to the host, in the order of the work that makes them.
      std::vector<std::size_t> order(copies.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::inplace_merge(
          order.begin(), order.begin() + activations, order.end(),
          [&](std::size_t a, std::size_t b) { return copies[a].order < copies[b].order; });
      std::vector<std::int32_t> made(copies.size(), -1);
      for (const std::size_t i : order) {
        const HostCopy& copy = copies[i];
        made[i] = add_host_task(u, d,
                                {copy.from_host ? Stream::FromHost : Stream::ToHost, copy.seconds,
                                 copy.bytes, copy.label});
        for (const std::int32_t task : copy.after) edges_.add(task, made[i]);
        for (const std::int32_t task : copy.before) edges_.add(made[i], task);
        if (copy.after_copy >= 0)
          edges_.add(made[static_cast<std::size_t>(copy.after_copy)], made[i]);
      }
    }
}

double Lowering::saved_bytes(const StageUnit& u, int chunk, std::int32_t layer) const {
  const ChunkExtent extent = extent_of(static_cast<int>(program_of(u.stage, chunk)));
  double bytes = 0;
  for (const SavedTensor& tensor :
       layer_saved_tensors(shape_of_layer(shape_, layer, layer - extent.first_layer)))
    bytes += tensor.bytes;
  return bytes;
}

std::int32_t Lowering::add_host_norm(StageUnit& u, int d) {
  const double bytes = owned_parameters(u) * gradient_bytes();
  const std::int32_t id = add_host_task(
      u, d,
      {Stream::Host, bytes / host_rates_of(u).memory_bytes_per_s, 0, "gradient norm on host"});
  if (const auto at = u.host_tails.find({Stream::ToHost, d}); at != u.host_tails.end())
    edges_.add(at->second, id);
  edges_.add(u.tail[static_cast<std::size_t>(d)], id);
  return id;
}

/// Gradients to the host where they are not there yet, Adam there, and new weights back: bucket by
/// bucket, so that the three run beside each other. The device waits for the last weights.
std::int32_t Lowering::add_host_update(StageUnit& u, int d, std::int32_t after) {
  const HostRates rates = host_rates_of(u);
  const double traffic =
      adam_traffic_bytes(plan_.precision, plan_.gradient_precision, plan_.moment_precision);
  const double shares = plan_.zero > 0 ? sharing_ranks() : 1;
  std::int32_t last = after;
  for (const auto& [chunk, bucket] : u.bucket_order) {
    const double owned = bucket_size(u.stage, chunk, bucket) / shares;
    if (owned <= 0) continue;
    std::int32_t before = after;
    if (!plan_.offload.gradients) {
      const double bytes = owned * gradient_bytes();
      before = add_host_task(
          u, d, {Stream::ToHost, bytes / rates.copy_bytes_per_s, bytes, "gradients to host"});
      edges_.add(after, before);
    }
    const std::int32_t adam = add_host_task(
        u, d, {Stream::Host, owned * traffic / rates.memory_bytes_per_s, 0, "Adam on host"});
    edges_.add(before, adam);
    const double bytes = owned * parameter_bytes();
    last = add_host_task(
        u, d, {Stream::FromHost, bytes / rates.copy_bytes_per_s, bytes, "weights from host"});
    edges_.add(adam, last);
  }
  return last;
}

}  // namespace rehearse
