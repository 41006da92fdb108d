#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "plan/ids.h"
#include "plan/problem.h"
#include "topologies/hardware.h"

namespace rehearse {

enum class FabricKind : std::uint8_t {
  SingleSwitch,   ///< every NIC on one non-blocking switch
  LeafSpine,      ///< all NICs of a node on one leaf
  FatTree,        ///< three levels: leaf, spine (pod), core
  RailOptimized,  ///< NIC i of every node of a group on leaf (rail) i
  Torus,          ///< nodes in a 1- to 3-dimensional torus, dimension-order routes
  Dragonfly,      ///< groups of switches, all-to-all inside and between, minimal routes
  Custom,         ///< vertices and edges given in the scenario
};

/// How parallel cables between two levels share traffic.
enum class Spreading : std::uint8_t {
  Adaptive,  ///< evenly over all of them: the cables are one trunk (InfiniBand adaptive routing)
  Ecmp,      ///< each pair of end points hashed to one path (plain Ethernet)
};

/// A cut-through switch (0.13–0.33 µs in vendors' figures for Quantum-2) and some 20 m of cable at
/// 5 ns/m; assumed.
inline constexpr double kDefaultHopLatency_s = 0.3e-6;

struct FabricSpec {
  FabricKind kind = FabricKind::SingleSwitch;
  double oversubscription = 1;  ///< capacity towards hosts / capacity upwards, at the leaves
  int switch_ports = 64;        ///< ports of a leaf or spine at NIC rate
  double hop_latency_s = 0;     ///< of one switch with its cable; 0: kDefaultHopLatency_s
  Spreading spreading = Spreading::Adaptive;
  std::vector<int> torus_dimensions;  ///< product = nodes
  int dragonfly_group_switches = 0;   ///< switches a group; 0: chosen from switch_ports
  /// Rail-optimised: nodes under one set of leaves; 0: as many as the leaves' ports allow (32 nodes
  /// with one NIC a GPU on 64 ports without oversubscription).
  int nodes_per_rail_group = 0;
};

struct NodeGroup {
  NodeSpec node;
  int count = 1;
  double speed = 1;  ///< computing rate of its GPUs relative to their data sheet (stragglers)
};

/// A vertex or edge of an inline graph.
struct CustomVertex {
  std::string name;
  bool is_gpu = false;
  int node = 0;  ///< which server a GPU vertex belongs to
};
struct CustomEdge {
  std::string from, to;
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;
  bool duplex = true;  ///< false: only from → to
};

struct ClusterSpec {
  std::vector<NodeGroup> groups;
  FabricSpec fabric;
  std::vector<CustomVertex> custom_vertices;  ///< kind Custom only
  std::vector<CustomEdge> custom_edges;
};

enum class LinkKind : std::uint8_t {
  NvlinkUp,
  NvlinkDown,  ///< GPU → NVSwitch, NVSwitch → GPU
  PcieUp,
  PcieDown,  ///< GPU → host, host → GPU (nodes without NVSwitch)
  NicUp,
  NicDown,  ///< NIC → first switch, first switch → NIC
  LeafUp,
  LeafDown,  ///< leaf → next level, and back
  SpineUp,
  SpineDown,  ///< spine → core, and back
  Torus,      ///< node to node
  Group,      ///< dragonfly: between two switches of a group
  Global,     ///< dragonfly: between two groups
  Custom,
  NicBoth,  ///< what both ways of NICs carry together, where they are not fully duplex
};
const char* link_kind_name(LinkKind kind);

/// One directed capacity that flows share: a cable direction or, with Adaptive spreading, the
/// trunk of all parallel cables between the same two switches' levels.
struct Link {
  LinkKind kind = LinkKind::NicUp;
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;
  double payload_share = 0;  ///< of its bandwidth, stated for NICs; 0: usual for its kind
  std::string name() const;  ///< "nic-up 12", "leaf-up 3.1"; made on demand
  std::int32_t owner = 0;    ///< GPU, NIC, switch, pod or node it belongs to
  std::int32_t index = 0;    ///< which of the owner's links of that kind
};

/// The way of one transfer: links in order, and the latency of the whole way, NICs included.
struct Route {
  static constexpr int kMaxHops = 66;
  std::int32_t count = 0;
  LinkId links[kMaxHops];
  double latency_s = 0;
};

/// A cluster as a graph of GPUs, NVSwitches, NICs and switches, with computed routes.
/// Memory is linear in GPUs; building 16,384 GPUs takes some milliseconds; a route costs well
/// under 1 µs and allocates nothing. (Custom graphs: one Dijkstra a GPU when built.) The property
/// graph itself is made when it is analysed or printed, from the same description as the routes.
/// Immutable once built.
///
/// Routes:
/// - inside a node: [NvlinkUp, NvlinkDown], or [PcieUp, PcieDown] without NVSwitch;
/// - between nodes: [NicUp, … fabric …, NicDown], on nodes without NVSwitch with PcieUp before and
///   PcieDown after, since there the same slot carries both kinds of traffic; NICs that are not
///   fully duplex have NicBoth before NicUp and after NicDown.
/// NICs that belong to one GPU are one link of their total rate, and no link of NICs is faster than
/// the PCIe slots of the GPUs that use it. A transfer leaves through the NIC of its own GPU and
/// arrives through that of the receiver; forwarding over NVLink to a GPU on the right rail first
/// (NCCL's PXN) is a choice of who sends, made above.
/// The latency of a route is the sum of its links'.
class Cluster {
 public:
  /// Builds the graph. Problems (torus dimensions that do not multiply to the node count, GPUs
  /// without a way to each other, …) are added with pointers relative to the cluster object:
  /// /nodes and /node/… with one node group, /groups/i/nodes and /groups/i/node/… with several.
  /// With problems the result has no GPUs, except when only ways are missing: such a graph can
  /// still be analysed and printed.
  static Cluster build(const ClusterSpec& spec, Problems& problems);
  ~Cluster();
  Cluster(Cluster&&) noexcept;
  Cluster& operator=(Cluster&&) noexcept;

  const ClusterSpec& spec() const;
  int gpu_count() const;
  int node_count() const;
  int node_of(GpuId gpu) const;
  /// First GPU of a node; a node's GPUs are numbered consecutively.
  GpuId first_gpu(int node) const;
  int gpus_in_node(int node) const;
  const NodeSpec& node(int node) const;  ///< spec of the node's group
  const GpuSpec& gpu(GpuId gpu) const;
  double speed(GpuId gpu) const;  ///< NodeGroup::speed of its group
  /// GPUs with equal domains reach each other over NVSwitch (or the same PCIe host).
  int local_domain(GpuId gpu) const { return node_of(gpu); }

  const std::vector<Link>& links() const;
  /// The way from one GPU's memory to another's. REQUIRES: from ≠ to.
  Route route(GpuId from, GpuId to) const;

  /// Vertices and edges of the graph, for analysis and printing.
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Cluster(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What the graph says about a cluster; computed with Boost.Graph algorithms.
struct ClusterAnalysis {
  /// Max flow from the first half of the nodes to the second; from the first half of the GPUs to
  /// the second in a single node.
  double bisection_bytes_per_s = 0;
  double full_bisection_bytes_per_s = 0;  ///< the same if only NICs limited
  double oversubscription = 1;            ///< full / actual
  int diameter_hops = 0;                  ///< most links on a shortest way between two GPUs
  double diameter_latency_s = 0;          ///< longest of the fastest ways between two GPUs
  int components = 1;                     ///< > 1: some GPUs cannot reach others
  std::vector<std::string> disconnected;  ///< names of vertices outside the largest component
  std::int64_t vertices = 0, edges = 0;
};
ClusterAnalysis analyse(const Cluster& cluster);

/// The graph in Graphviz's DOT, bandwidths as labels: every GPU up to 8 nodes, one box a node up
/// to 64, and one box a tier with its count beyond.
std::string to_dot(const Cluster& cluster);

}  // namespace rehearse
