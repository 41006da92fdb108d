#include "strategies/expert_groups.h"

#include <algorithm>
#include <map>

#include "strategies/fluid_time.h"

namespace rehearse {

double nodes_of_token(int nodes, int experts_per_node, int active) {
  // The chance that none of the k experts lies on a given node, factor by factor.
  double none = 1;
  const double all = static_cast<double>(nodes) * experts_per_node;
  for (int i = 0; i < active; ++i)
    none *= std::max(0.0, all - experts_per_node - i) / std::max(1.0, all - i);
  return nodes * (1 - none);
}

ExpertTraffic expert_traffic(const ExpertDeal& deal) {
  const double per_node = static_cast<double>(deal.ranks) / deal.nodes;
  ExpertTraffic traffic;
  // Of the copies, those for another GPU of the node they are, or have arrived, on.
  traffic.inside = (per_node - 1) / per_node;
  const double remote = static_cast<double>(deal.nodes - 1) / deal.nodes;
  traffic.network = remote;
  if (deal.node_limit <= 0 || deal.nodes == 1) return traffic;
  const int chosen = std::min(deal.node_limit, deal.nodes);
  const int experts_per_node = std::max(1, deal.experts / deal.nodes);
  traffic.network = remote * nodes_of_token(chosen, experts_per_node, deal.active) / deal.active;
  return traffic;
}

std::vector<PhysicalFlow> expert_flows(const Cluster& cluster, const std::vector<GpuId>& group,
                                       const ExpertTraffic& traffic) {
  std::map<int, std::vector<GpuId>> by_node;
  for (const GpuId gpu : group) by_node[cluster.node_of(gpu)].push_back(gpu);
  std::vector<PhysicalFlow> network, inside;
  const double share = traffic.network / static_cast<double>(by_node.size() - 1);
  for (const auto& [from_node, from] : by_node) {
    for (const auto& [to_node, to] : by_node) {
      if (from_node == to_node) continue;
      for (std::size_t i = 0; i < from.size(); ++i)
        network.push_back({from[i], to[i % to.size()], share});
    }
    for (std::size_t i = 0; i < from.size() && from.size() > 1; ++i)
      inside.push_back({from[i], from[(i + 1) % from.size()], traffic.inside});
  }
  const bool inside_is_narrower =
      fluid_seconds_per_byte(cluster, inside) > fluid_seconds_per_byte(cluster, network);
  if (inside_is_narrower) network.insert(network.end(), inside.begin(), inside.end());
  return network;
}

}  // namespace rehearse
