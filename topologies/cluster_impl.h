#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "topologies/cluster.h"
#include "topologies/fabric.h"
#include "topologies/graph.h"

namespace rehearse {

/// An inline graph: its links are the given edges in order, a duplex one as two, and ways are
/// looked up in a table of last links.
struct CustomGraph {
  std::vector<std::string> names;           ///< by vertex
  std::vector<std::int32_t> vertex_of_gpu;  ///< GPUs in the order of their nodes
  std::vector<std::int32_t> from, to;       ///< vertices of each link
  std::vector<std::int32_t> last_link;      ///< [gpu · vertices + vertex]; −1: no way
  std::vector<std::int32_t> gpu_of_vertex;  ///< −1 where it is none

  std::int32_t vertex_count() const { return static_cast<std::int32_t>(names.size()); }
  /// Appends the fastest way. REQUIRES: there is one.
  void append_way(GpuId from_gpu, GpuId to_gpu, Route& route) const;
};

/// Links are numbered: local up and down of each GPU, up and down of each port, the fabric's, and
/// both ways together of ports that are not fully duplex.
/// In custom graphs all links are the graph's own.
struct Cluster::Impl {
  ClusterSpec spec;
  std::vector<std::int32_t> group_of_node;
  std::vector<std::int32_t> first_gpu_of_node;  ///< one entry more than nodes
  std::vector<std::int32_t> node_of_gpu, port_of_gpu;
  PortTable table;
  std::vector<std::int32_t> both_ways_of_port;  ///< link; −1: full duplex. Empty: no network
  std::vector<Link> links;
  std::unique_ptr<Fabric> fabric;       ///< none in a single node or a custom graph
  std::unique_ptr<CustomGraph> custom;  ///< kind Custom only

  int gpu_count() const { return static_cast<int>(node_of_gpu.size()); }
  int node_count() const { return static_cast<int>(group_of_node.size()); }
  const NodeGroup& group(std::int32_t node) const {
    return spec.groups[static_cast<std::size_t>(group_of_node[static_cast<std::size_t>(node)])];
  }
  std::int32_t local_link(std::int32_t gpu) const { return 2 * gpu; }
  std::int32_t nic_link(std::int32_t port) const { return 2 * gpu_count() + 2 * port; }
};

/// Adds what is wrong with the numbers of a specification, whatever the fabric makes of them.
void check_cluster_spec(const ClusterSpec& spec, Problems& problems);

/// Fills links and custom graph. Problems as Cluster::build.
void build_custom_graph(Cluster::Impl& impl, Problems& problems);

/// The whole cluster, as cluster_graph(const Cluster&).
ClusterGraph cluster_graph(const Cluster::Impl& impl);

/// The switches alone; switch s is vertex s. REQUIRES: the cluster has a fabric.
ClusterGraph fabric_graph(const Cluster::Impl& impl);

}  // namespace rehearse
