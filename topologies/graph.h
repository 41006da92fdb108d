#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "topologies/cluster.h"

namespace rehearse {

enum class VertexKind : std::uint8_t {
  Gpu,
  NvSwitch,  ///< all NVSwitches of a node
  Host,      ///< CPUs and PCIe switches of a node without NVSwitch
  Nic,       ///< the NICs that act as one
  Leaf,
  Spine,
  Core,
  Router,  ///< a node's place in a torus
  Switch,  ///< of a single-switch fabric or a dragonfly
  Custom,
};

struct GraphVertex {
  VertexKind kind = VertexKind::Gpu;
  std::int32_t index = 0;  ///< among its kind
  std::int32_t node = -1;  ///< −1 outside of nodes
  std::int32_t count = 1;  ///< devices it stands for (adaptive spreading makes a tier one vertex)
};

struct GraphEdge {
  std::int32_t from = 0, to = 0;
  LinkId link{-1};  ///< −1: not a capacity of its own (between a GPU or host and its NIC)
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;
};

/// Shortest ways from one vertex. Hops count edges that are links.
struct ShortestWays {
  static constexpr double kUnreachable = std::numeric_limits<double>::infinity();
  std::vector<std::int32_t> incoming_edge;  ///< last edge on the way to each vertex, −1 for none
  std::vector<double> latency_s;            ///< kUnreachable where there is no way
  std::vector<std::int32_t> hops;
};

enum class WayOrder : std::uint8_t { FewestHops, LeastLatency };

/// The cluster as a directed property graph, kept in Boost.Graph and analysed with its
/// algorithms. Vertices and edges keep the numbers in which they were given.
class ClusterGraph {
 public:
  ClusterGraph(std::vector<GraphVertex> vertices, std::vector<GraphEdge> edges);
  ~ClusterGraph();
  ClusterGraph(ClusterGraph&&) noexcept;
  ClusterGraph& operator=(ClusterGraph&&) noexcept;

  const std::vector<GraphVertex>& vertices() const { return vertices_; }
  const std::vector<GraphEdge>& edges() const { return edges_; }

  /// Dijkstra by (hops, latency) or (latency, hops). Same graph, same ways.
  ShortestWays shortest_ways(std::int32_t from, WayOrder order) const;

  /// Most bytes/s that can flow from the sources together to the sinks together; push-relabel on
  /// bandwidths rounded to whole bytes/s.
  struct Terminal {
    std::int32_t vertex = 0;
    double bandwidth_bytes_per_s = 0;  ///< most that this vertex can give or take
  };
  double max_flow_bytes_per_s(const std::vector<Terminal>& sources,
                              const std::vector<Terminal>& sinks) const;

  /// Component of each vertex; two vertices share one when there is a way there and back.
  std::vector<std::int32_t> strong_components() const;

 private:
  struct Boosted;
  std::vector<GraphVertex> vertices_;
  std::vector<GraphEdge> edges_;
  std::unique_ptr<Boosted> boosted_;
};

/// The whole cluster. GPU i is vertex i.
ClusterGraph cluster_graph(const Cluster& cluster);

/// "gpu 12", "leaf 3", or the name given in a custom graph.
std::string vertex_name(const Cluster& cluster, const GraphVertex& vertex);

}  // namespace rehearse
