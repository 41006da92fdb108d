#include "strategies/collective_flows.h"

#include <algorithm>
#include <unordered_map>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// The ranks of a communicator node by node, in rank order inside a node.
std::vector<std::vector<GpuId>> by_node(const Cluster& cluster, const std::vector<GpuId>& ranks) {
  std::vector<std::vector<GpuId>> nodes;
  std::unordered_map<int, std::size_t> index_of;  // looked up only, never iterated
  for (const GpuId gpu : ranks) {
    const auto [at, is_new] = index_of.try_emplace(cluster.node_of(gpu), nodes.size());
    if (is_new) nodes.emplace_back();
    nodes[at->second].push_back(gpu);
  }
  return nodes;
}

std::size_t channels_of(const std::vector<std::vector<GpuId>>& nodes) {
  std::size_t channels = nodes.front().size();
  for (const auto& node : nodes) channels = std::min(channels, node.size());
  return channels;
}

/// Every GPU hands `factor` · (g−1)/g of the bytes to its neighbour in the node: of g channels
/// one leaves the node there.
void add_chains(std::vector<PhysicalFlow>& flows, const std::vector<std::vector<GpuId>>& nodes,
                double factor) {
  for (const auto& node : nodes) {
    const std::size_t g = node.size();
    if (g < 2) continue;
    const double share = factor * static_cast<double>(g - 1) / static_cast<double>(g);
    for (std::size_t i = 0; i < g; ++i) flows.push_back({node[i], node[(i + 1) % g], share});
  }
}

void add_edge(std::vector<PhysicalFlow>& flows, const std::vector<GpuId>& from,
              const std::vector<GpuId>& to, std::size_t channels, double factor) {
  for (std::size_t c = 0; c < channels; ++c)
    flows.push_back({from[c], to[c], factor / static_cast<double>(channels)});
}

std::vector<PhysicalFlow> ring_flows(const std::vector<std::vector<GpuId>>& nodes, double factor,
                                     bool closed) {
  std::vector<PhysicalFlow> flows;
  const std::size_t channels = channels_of(nodes);
  for (std::size_t i = 0; i + (closed ? 0 : 1) < nodes.size(); ++i)
    add_edge(flows, nodes[i], nodes[(i + 1) % nodes.size()], channels, factor);
  add_chains(flows, nodes, factor);
  return flows;
}

/// Parent of a node in NCCL's binary tree over n nodes (src/graph/trees.cc); −1 for the root.
int tree_parent(int node, int n) {
  if (node == 0) return -1;
  const int lowest = node & -node;
  const int up = (node ^ lowest) | (lowest << 1);
  return up < n ? up : node ^ lowest;
}

std::vector<PhysicalFlow> tree_flows(const std::vector<std::vector<GpuId>>& nodes, bool nvls) {
  std::vector<PhysicalFlow> flows;
  const int n = static_cast<int>(nodes.size());
  const std::size_t channels = channels_of(nodes);
  for (int tree = 0; tree < 2; ++tree) {
    // The second tree is the first one shifted (odd n) or mirrored (even n), so that a node
    // inside one tree is a leaf of the other.
    const auto place = [&](int i) {
      const int at = tree == 0 ? i : (n % 2 == 1 ? (i + 1) % n : n - 1 - i);
      return static_cast<std::size_t>(at);
    };
    for (int i = 0; i < n; ++i) {
      const int parent = tree_parent(i, n);
      if (parent < 0) continue;
      add_edge(flows, nodes[place(i)], nodes[place(parent)], channels, 0.5);
      add_edge(flows, nodes[place(parent)], nodes[place(i)], channels, 0.5);
    }
  }
  // Inside a node: a chain up and down, or one read and one write through the switch (NVLS).
  add_chains(flows, nodes, nvls ? 1.0 : 2.0);
  return flows;
}

}  // namespace

bool is_local(const Cluster& cluster, const std::vector<GpuId>& ranks) {
  return std::all_of(ranks.begin(), ranks.end(), [&](GpuId gpu) {
    return cluster.local_domain(gpu) == cluster.local_domain(ranks.front());
  });
}

CommunicatorShape communicator_shape(const Cluster& cluster, const std::vector<GpuId>& ranks) {
  ensure(!ranks.empty(), "a communicator has at least one rank");
  const auto nodes = by_node(cluster, ranks);
  const std::size_t per_node = channels_of(nodes);
  CommunicatorShape shape;
  shape.nodes = static_cast<int>(nodes.size());
  shape.ranks_per_node = static_cast<int>((ranks.size() + nodes.size() - 1) / nodes.size());
  shape.compute_capability = 1000;
  for (const GpuId gpu : ranks) {
    const GpuSpec& spec = cluster.gpu(gpu);
    shape.compute_capability = std::min(shape.compute_capability, spec.compute_capability);
  }
  const NodeSpec& node = cluster.node(cluster.node_of(ranks.front()));
  shape.nvswitch = node.nvswitch;
  shape.nvlink_bandwidth_bytes_per_s = node.gpu.nvlink_bandwidth_bytes_per_s;
  shape.pcie_bandwidth_bytes_per_s = node.gpu.pcie_bandwidth_bytes_per_s;
  const double node_bandwidth = node.nics * node.nic_bandwidth_bytes_per_s;
  shape.nic_bandwidth_bytes_per_s = node_bandwidth / std::max(1, std::min(node.nics, node.gpus));
  shape.nics_per_node = std::max(
      1, static_cast<int>(std::min<std::size_t>(
             per_node, static_cast<std::size_t>(std::max(1, std::min(node.nics, node.gpus))))));
  shape.nic_goodput = node.nic_goodput;
  shape.nic_duplex = node.nic_duplex;
  if (nodes.size() > 1)
    shape.nic_latency_s = cluster.route(nodes[0].front(), nodes[1].front()).latency_s;
  return shape;
}

std::vector<PhysicalFlow> collective_flows(const Cluster& cluster, const std::vector<GpuId>& ranks,
                                           CollectiveKind kind, CollectiveAlgorithm algorithm) {
  const auto nodes = by_node(cluster, ranks);
  const auto n = static_cast<double>(ranks.size());
  switch (kind) {
    case CollectiveKind::AllReduce:
      if (algorithm == CollectiveAlgorithm::Ring) return ring_flows(nodes, 2 * (n - 1) / n, true);
      return tree_flows(nodes, algorithm != CollectiveAlgorithm::Tree);
    case CollectiveKind::AllGather:
    case CollectiveKind::ReduceScatter:
      return ring_flows(nodes, (n - 1) / n, true);
    case CollectiveKind::Broadcast:
      return ring_flows(nodes, 1, false);
    case CollectiveKind::SendReceive:
      ensure(ranks.size() == 2, "a transfer has two ends");
      return {{ranks[0], ranks[1], 1}};
    case CollectiveKind::AllToAll: {
      std::vector<PhysicalFlow> flows;
      for (const GpuId from : ranks)
        for (const GpuId to : ranks)
          if (from != to) flows.push_back({from, to, 1 / n});
      return flows;
    }
  }
  return {};
}

}  // namespace rehearse
