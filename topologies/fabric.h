#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "topologies/cluster.h"
#include "topologies/graph.h"

namespace rehearse {

/// What a node plugs into the fabric: one NIC, or the NICs that belong to one GPU.
struct Port {
  std::int32_t node = 0;
  std::int32_t rail = 0;  ///< its place within the node
  std::int32_t nics = 1;  ///< switch ports it takes
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;
};

/// Ports of the nodes in order: those of node n are first_port[n] … first_port[n+1].
struct PortTable {
  std::vector<Port> ports;
  std::vector<std::int32_t> first_port;
  int nodes() const { return static_cast<int>(first_port.size()) - 1; }
};

/// Vertices and edges of the switches, to which the cluster adds its nodes.
struct GraphParts {
  std::vector<GraphVertex> vertices;
  std::vector<GraphEdge> edges;
};

/// The switches between the nodes: their links, the ways through them, and the same as a graph.
/// Each link leaving a switch carries that switch's latency.
class Fabric {
 public:
  virtual ~Fabric() = default;

  /// Appends the links between switches that lead from one port to the other.
  virtual void append_way(std::int32_t from_port, std::int32_t to_port, std::uint64_t hash,
                          Route& route) const = 0;

  /// Number of the switch a port is plugged into.
  virtual std::int32_t switch_of(std::int32_t port) const = 0;

  /// Appends the switches and links; vertex of switch s is (vertices there before) + s for every
  /// switch that ports are plugged into.
  virtual void append_graph(const std::vector<Link>& links, GraphParts& parts) const = 0;

  /// Latency of leaving the last switch towards a NIC.
  virtual double exit_latency_s() const = 0;
};

/// Each appends its links to `links` and returns nothing if it added problems.
std::unique_ptr<Fabric> make_single_switch(const FabricSpec& spec);
std::unique_ptr<Fabric> make_clos(const FabricSpec& spec, const PortTable& table,
                                  std::vector<Link>& links, Problems& problems);
std::unique_ptr<Fabric> make_torus(const FabricSpec& spec, const PortTable& table,
                                   std::vector<Link>& links, Problems& problems);
std::unique_ptr<Fabric> make_dragonfly(const FabricSpec& spec, const PortTable& table,
                                       std::vector<Link>& links, Problems& problems);

inline double hop_latency_s(const FabricSpec& spec) {
  return spec.hop_latency_s > 0 ? spec.hop_latency_s : kDefaultHopLatency_s;
}

inline void append(Route& route, std::int32_t link) { route.links[route.count++] = LinkId{link}; }

/// Appends an edge for a link.
inline void append_edge(GraphParts& parts, std::int32_t from, std::int32_t to, std::int32_t link,
                        const std::vector<Link>& links) {
  const Link& l = links[static_cast<std::size_t>(link)];
  parts.edges.push_back({from, to, LinkId{link}, l.bandwidth_bytes_per_s, l.latency_s});
}

/// Shorthands for the reports of this folder.
inline void add_problem(Problems& problems, std::string pointer, std::string message,
                        std::string hint = {}) {
  Problem problem;
  problem.pointer = std::move(pointer);
  problem.message = std::move(message);
  problem.hint = std::move(hint);
  problems.add(std::move(problem));
}

}  // namespace rehearse
