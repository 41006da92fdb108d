#include <algorithm>
#include <map>

#include "topologies/cluster_impl.h"
#include "topologies/graph.h"

// How the analysis stays fast at thousands of nodes without being an estimate:
// - Bisection: the ports of one switch that belong to the same half are one terminal with their
//   total rate. Nothing is lost: all GPUs of a half are joined to the same super-source (or sink)
//   and ports are no faster than their GPUs' slots, so a minimal cut never runs inside a node, and
//   the edges from a half's ports to a switch are parallel.
// - Diameter: the ways from all ports of one switch are the same but for the NICs, so two ports of
//   each node group at each switch stand for all. Beyond kMostSources ports the sources are an even
//   sample (all ports stay targets); the fabrics built here look the same from every full leaf,
//   router or group.

namespace rehearse {
namespace {

constexpr std::size_t kMostSources = 128;

struct Bisection {
  double actual_bytes_per_s = 0, full_bytes_per_s = 0;
};

using Terminals = std::vector<ClusterGraph::Terminal>;

Bisection bisect(const ClusterGraph& graph, const Terminals& halves_0, const Terminals& halves_1) {
  const auto total = [](const Terminals& half) {
    double sum = 0;
    for (const auto& terminal : half) sum += terminal.bandwidth_bytes_per_s;
    return sum;
  };
  return {graph.max_flow_bytes_per_s(halves_0, halves_1),
          std::min(total(halves_0), total(halves_1))};
}

/// Between the GPUs themselves: a single node, or a custom graph.
Bisection bisect_gpus(const Cluster::Impl& impl, const ClusterGraph& graph) {
  std::vector<double> out(graph.vertices().size(), 0), in(graph.vertices().size(), 0);
  for (const GraphEdge& edge : graph.edges()) {
    out[static_cast<std::size_t>(edge.from)] += edge.bandwidth_bytes_per_s;
    in[static_cast<std::size_t>(edge.to)] += edge.bandwidth_bytes_per_s;
  }
  Terminals sources, sinks;
  for (std::size_t v = 0; v < graph.vertices().size(); ++v) {
    const GraphVertex& vertex = graph.vertices()[v];
    if (vertex.kind != VertexKind::Gpu) continue;
    const bool first_half = impl.node_count() > 1 ? vertex.node < impl.node_count() / 2
                                                  : vertex.index < impl.gpu_count() / 2;
    if (first_half)
      sources.push_back({static_cast<std::int32_t>(v), out[v]});
    else
      sinks.push_back({static_cast<std::int32_t>(v), in[v]});
  }
  return bisect(graph, sources, sinks);
}

Bisection bisect_fabric(const Cluster::Impl& impl) {
  std::map<std::int32_t, double> rates[2];
  for (std::size_t p = 0; p < impl.table.ports.size(); ++p) {
    const Port& port = impl.table.ports[p];
    rates[port.node < impl.node_count() / 2 ? 0 : 1]
         [impl.fabric->switch_of(static_cast<std::int32_t>(p))] += port.bandwidth_bytes_per_s;
  }
  Terminals halves[2];
  for (int half = 0; half < 2; ++half)
    for (const auto& [at, rate] : rates[half]) halves[half].push_back({at, rate});
  return bisect(fabric_graph(impl), halves[0], halves[1]);
}

struct Diameter {
  std::int32_t hops = 0;
  double latency_s = 0;
  void include(std::int32_t way_hops, double way_latency_s) {
    hops = std::max(hops, way_hops);
    latency_s = std::max(latency_s, way_latency_s);
  }
};

void include_local_ways(const Cluster::Impl& impl, Diameter& diameter) {
  for (std::int32_t node = 0; node < impl.node_count(); ++node) {
    if (impl.group(node).node.gpus < 2) continue;
    const std::int32_t gpu = impl.first_gpu_of_node[static_cast<std::size_t>(node)];
    const auto link = static_cast<std::size_t>(impl.local_link(gpu));
    diameter.include(2, impl.links[link].latency_s + impl.links[link + 1].latency_s);
  }
}

/// The first and the last port of each node group at each switch.
std::vector<std::int32_t> representative_ports(const Cluster::Impl& impl) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<std::int32_t, std::int32_t>> ends;
  for (std::int32_t p = 0; p < static_cast<std::int32_t>(impl.table.ports.size()); ++p) {
    const std::int32_t node = impl.table.ports[static_cast<std::size_t>(p)].node;
    const std::int32_t group = impl.group_of_node[static_cast<std::size_t>(node)];
    ends.try_emplace({impl.fabric->switch_of(p), group}, p, p).first->second.second = p;
  }
  std::vector<std::int32_t> ports;
  for (const auto& [at, pair] : ends) {
    ports.push_back(pair.first);
    if (pair.second != pair.first) ports.push_back(pair.second);
  }
  return ports;
}

/// The switches with the representative ports as vertices behind them.
ClusterGraph representative_graph(const Cluster::Impl& impl, const std::vector<std::int32_t>& ports,
                                  std::int32_t& first_port_vertex) {
  GraphParts parts;
  impl.fabric->append_graph(impl.links, parts);
  first_port_vertex = static_cast<std::int32_t>(parts.vertices.size());
  for (const std::int32_t port : ports) {
    const auto vertex = static_cast<std::int32_t>(parts.vertices.size());
    parts.vertices.push_back({.kind = VertexKind::Nic, .index = port});
    append_edge(parts, vertex, impl.fabric->switch_of(port), impl.nic_link(port), impl.links);
    append_edge(parts, impl.fabric->switch_of(port), vertex, impl.nic_link(port) + 1, impl.links);
  }
  return ClusterGraph(std::move(parts.vertices), std::move(parts.edges));
}

void include_fabric_ways(const Cluster::Impl& impl, Diameter& diameter) {
  const std::vector<std::int32_t> ports = representative_ports(impl);
  std::int32_t first = 0;
  const ClusterGraph graph = representative_graph(impl, ports, first);
  const auto node_of = [&](std::size_t i) {
    return impl.table.ports[static_cast<std::size_t>(ports[i])].node;
  };
  // Without NVSwitch the way begins and ends with the GPU's slot.
  const auto slot_hops = [&](std::size_t i) {
    return impl.group(node_of(i)).node.nvswitch ? 0 : 1;
  };
  const auto slot_latency_s = [&](std::size_t i) {
    const std::int32_t gpu = impl.first_gpu_of_node[static_cast<std::size_t>(node_of(i))];
    return slot_hops(i) * impl.links[static_cast<std::size_t>(impl.local_link(gpu))].latency_s;
  };
  const std::size_t sources = std::min(ports.size(), kMostSources);
  for (std::size_t s = 0; s < sources; ++s) {
    const std::size_t i = sources > 1 ? s * (ports.size() - 1) / (sources - 1) : 0;
    const std::int32_t from = first + static_cast<std::int32_t>(i);
    const ShortestWays fewest = graph.shortest_ways(from, WayOrder::FewestHops);
    const ShortestWays fastest = graph.shortest_ways(from, WayOrder::LeastLatency);
    for (std::size_t j = 0; j < ports.size(); ++j) {
      if (node_of(i) == node_of(j)) continue;
      const std::size_t to = static_cast<std::size_t>(first) + j;
      diameter.include(fewest.hops[to] + slot_hops(i) + slot_hops(j),
                       fastest.latency_s[to] + slot_latency_s(i) + slot_latency_s(j));
    }
  }
}

void include_custom_ways(const Cluster::Impl& impl, const ClusterGraph& graph, Diameter& diameter) {
  for (const std::int32_t from : impl.custom->vertex_of_gpu) {
    const ShortestWays fewest = graph.shortest_ways(from, WayOrder::FewestHops);
    const ShortestWays fastest = graph.shortest_ways(from, WayOrder::LeastLatency);
    for (const std::int32_t vertex : impl.custom->vertex_of_gpu) {
      const auto to = static_cast<std::size_t>(vertex);
      if (fewest.hops[to] >= 0) diameter.include(fewest.hops[to], fastest.latency_s[to]);
    }
  }
}

void find_components(const Cluster& cluster, const ClusterGraph& graph, ClusterAnalysis& analysis) {
  const std::vector<std::int32_t> component = graph.strong_components();
  std::map<std::int32_t, std::int64_t> sizes;
  for (const std::int32_t c : component) ++sizes[c];
  analysis.components = static_cast<int>(sizes.size());
  const std::int32_t largest =
      std::max_element(sizes.begin(), sizes.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->first;
  for (std::size_t v = 0; v < component.size(); ++v)
    if (component[v] != largest)
      analysis.disconnected.push_back(vertex_name(cluster, graph.vertices()[v]));
}

}  // namespace

ClusterAnalysis analyse(const Cluster& cluster) {
  ClusterAnalysis analysis;
  const Cluster::Impl& impl = cluster.impl();
  if (impl.gpu_count() == 0) return analysis;
  const ClusterGraph graph = cluster_graph(cluster);
  analysis.vertices = static_cast<std::int64_t>(graph.vertices().size());
  analysis.edges = static_cast<std::int64_t>(graph.edges().size());
  find_components(cluster, graph, analysis);

  const Bisection bisection = impl.fabric ? bisect_fabric(impl) : bisect_gpus(impl, graph);
  analysis.bisection_bytes_per_s = bisection.actual_bytes_per_s;
  analysis.full_bisection_bytes_per_s = bisection.full_bytes_per_s;
  if (bisection.actual_bytes_per_s > 0)
    analysis.oversubscription = bisection.full_bytes_per_s / bisection.actual_bytes_per_s;

  Diameter diameter;
  if (!impl.custom) include_local_ways(impl, diameter);
  if (impl.fabric) include_fabric_ways(impl, diameter);
  if (impl.custom) include_custom_ways(impl, graph, diameter);
  analysis.diameter_hops = diameter.hops;
  analysis.diameter_latency_s = diameter.latency_s;
  return analysis;
}

}  // namespace rehearse
