#include "topologies/graph.h"

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/dijkstra_shortest_paths.hpp>
#include <boost/graph/push_relabel_max_flow.hpp>
#include <boost/graph/strong_components.hpp>
#include <boost/property_map/function_property_map.hpp>
#include <cmath>

namespace rehearse {
namespace {

struct EdgeProperties {
  GraphEdge edge;
  std::int32_t number = 0;
};

using PropertyGraph =
    boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, GraphVertex, EdgeProperties>;
using EdgeDescriptor = boost::graph_traits<PropertyGraph>::edge_descriptor;

/// Length of a way: two quantities, the first decides.
struct Length {
  double first = 0, second = 0;
  auto operator<=>(const Length&) const = default;
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Length operator+(const Length& a, const Length& b) {
  return {a.first + b.first, a.second + b.second};
}

/// Remembers the edge by which each vertex was reached.
class LastEdges : public boost::dijkstra_visitor<> {
 public:
  explicit LastEdges(std::vector<std::int32_t>& last) : last_(&last) {}
  void edge_relaxed(EdgeDescriptor edge, const PropertyGraph& graph) const {
    (*last_)[boost::target(edge, graph)] = graph[edge].number;
  }

 private:
  std::vector<std::int32_t>* last_;
};

using FlowTraits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
using FlowGraph = boost::adjacency_list<
    boost::vecS, boost::vecS, boost::directedS, boost::no_property,
    boost::property<
        boost::edge_capacity_t, std::int64_t,
        boost::property<boost::edge_residual_capacity_t, std::int64_t,
                        boost::property<boost::edge_reverse_t, FlowTraits::edge_descriptor>>>>;

void append_flow_edge(FlowGraph& graph, std::size_t from, std::size_t to, double bandwidth) {
  const auto forward = boost::add_edge(from, to, graph).first;
  const auto backward = boost::add_edge(to, from, graph).first;
  boost::put(boost::edge_capacity, graph, forward, std::llround(bandwidth));
  boost::put(boost::edge_capacity, graph, backward, 0);
  boost::put(boost::edge_reverse, graph, forward, backward);
  boost::put(boost::edge_reverse, graph, backward, forward);
}

}  // namespace

struct ClusterGraph::Boosted {
  explicit Boosted(std::size_t vertices) : graph(vertices) {}
  PropertyGraph graph;
};

ClusterGraph::ClusterGraph(std::vector<GraphVertex> vertices, std::vector<GraphEdge> edges)
    : vertices_(std::move(vertices)),
      edges_(std::move(edges)),
      boosted_(std::make_unique<Boosted>(vertices_.size())) {
  PropertyGraph& graph = boosted_->graph;
  for (std::size_t v = 0; v < vertices_.size(); ++v) graph[v] = vertices_[v];
  for (std::size_t e = 0; e < edges_.size(); ++e)
    boost::add_edge(static_cast<std::size_t>(edges_[e].from),
                    static_cast<std::size_t>(edges_[e].to),
                    EdgeProperties{edges_[e], static_cast<std::int32_t>(e)}, graph);
}

ClusterGraph::~ClusterGraph() = default;
ClusterGraph::ClusterGraph(ClusterGraph&&) noexcept = default;
ClusterGraph& ClusterGraph::operator=(ClusterGraph&&) noexcept = default;

ShortestWays ClusterGraph::shortest_ways(std::int32_t from, WayOrder order) const {
  const PropertyGraph& graph = boosted_->graph;
  const auto source = static_cast<std::size_t>(from);
  const bool by_hops = order == WayOrder::FewestHops;
  const auto length_of = [&](const EdgeDescriptor& edge) -> Length {
    const double hops = graph[edge].edge.link.value >= 0 ? 1 : 0;
    const double latency = graph[edge].edge.latency_s;
    return by_hops ? Length{hops, latency} : Length{latency, hops};
  };
  ShortestWays ways;
  ways.incoming_edge.assign(vertices_.size(), -1);
  std::vector<Length> length(vertices_.size());
  boost::dijkstra_shortest_paths(
      graph, source,
      boost::weight_map(boost::make_function_property_map<EdgeDescriptor>(length_of))
          .distance_map(boost::make_iterator_property_map(length.begin(),
                                                          boost::get(boost::vertex_index, graph)))
          .distance_zero(Length{})
          .distance_inf(Length{kInfinity, kInfinity})
          .distance_combine([](const Length& a, const Length& b) { return a + b; })
          .distance_compare([](const Length& a, const Length& b) { return a < b; })
          .visitor(LastEdges(ways.incoming_edge)));
  for (const Length& l : length) {
    const double hops = by_hops ? l.first : l.second;
    ways.hops.push_back(std::isinf(hops) ? -1 : static_cast<std::int32_t>(hops));
    ways.latency_s.push_back(by_hops ? l.second : l.first);
  }
  return ways;
}

double ClusterGraph::max_flow_bytes_per_s(const std::vector<Terminal>& sources,
                                          const std::vector<Terminal>& sinks) const {
  const std::size_t source = vertices_.size(), sink = source + 1;
  FlowGraph graph(sink + 1);
  for (const GraphEdge& edge : edges_)
    append_flow_edge(graph, static_cast<std::size_t>(edge.from), static_cast<std::size_t>(edge.to),
                     edge.bandwidth_bytes_per_s);
  for (const Terminal& t : sources)
    append_flow_edge(graph, source, static_cast<std::size_t>(t.vertex), t.bandwidth_bytes_per_s);
  for (const Terminal& t : sinks)
    append_flow_edge(graph, static_cast<std::size_t>(t.vertex), sink, t.bandwidth_bytes_per_s);
  return static_cast<double>(boost::push_relabel_max_flow(graph, source, sink));
}

std::vector<std::int32_t> ClusterGraph::strong_components() const {
  std::vector<std::int32_t> component(vertices_.size());
  if (vertices_.empty()) return component;
  const PropertyGraph& graph = boosted_->graph;
  boost::strong_components(graph, boost::make_iterator_property_map(
                                      component.begin(), boost::get(boost::vertex_index, graph)));
  return component;
}

}  // namespace rehearse
