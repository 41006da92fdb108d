#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topologies/fabric.h"

// Folded Clos networks of one to three levels: leaf-spine, fat tree and rail-optimised differ only
// in which leaf a port is plugged into and in how many levels they may have.
//
// With P ports a switch and oversubscription o, a leaf gives d = ⌊P·o/(1+o)⌋ ports to hosts and
// ⌈d/o⌉ to the next level. Two levels serve up to P leaves (a spine has one port for each). Three
// levels put P/2 leaves under the spines of a pod, whose other P/2 ports go up to cores; a core has
// one port for each of up to P pods (Al-Fares et al., SIGCOMM 2008). Only leaves are
// oversubscribed.
//
// What goes up from a leaf is exactly (what its ports can send) / o: a leaf that is not full has
// its uplinks thinned in proportion.

namespace rehearse {
namespace {

struct ClosSizes {
  int ports = 0;
  int down_ports = 0;      ///< of a leaf
  int leaves_per_pod = 0;  ///< with three levels
  int max_levels = 3;
};

class Clos : public Fabric {
 public:
  void append_way(std::int32_t from_port, std::int32_t to_port, std::uint64_t hash,
                  Route& route) const override {
    const std::int32_t from = leaf_of_port_[static_cast<std::size_t>(from_port)];
    const std::int32_t to = leaf_of_port_[static_cast<std::size_t>(to_port)];
    if (from == to) return;
    const auto uplink = static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(uplinks_));
    append(route, leaf_link(from, uplink));
    if (const std::int32_t from_pod = pod(from), to_pod = pod(to); from_pod != to_pod) {
      const auto core =
          static_cast<std::int32_t>((hash >> 32) % static_cast<std::uint64_t>(cores_per_spine_));
      append(route, spine_link(from_pod, uplink, core));
      append(route, spine_link(to_pod, uplink, core) + 1);
    }
    append(route, leaf_link(to, uplink) + 1);
  }

  std::int32_t switch_of(std::int32_t port) const override {
    return leaf_of_port_[static_cast<std::size_t>(port)];
  }
  double exit_latency_s() const override { return hop_latency_s_; }
  void append_graph(const std::vector<Link>& links, GraphParts& parts) const override;

  /// Cables the leaves together once every port has its leaf.
  bool cable(const FabricSpec& spec, const ClosSizes& sizes, const PortTable& table,
             std::vector<Link>& links, Problems& problems);

  std::vector<std::int32_t>& leaf_of_port() { return leaf_of_port_; }
  std::int32_t leaves_ = 0;

 private:
  std::int32_t pod(std::int32_t leaf) const { return levels_ < 3 ? 0 : leaf / leaves_per_pod_; }
  std::int32_t pods() const { return levels_ < 3 ? 1 : pod(leaves_ - 1) + 1; }
  std::int32_t leaf_link(std::int32_t leaf, std::int32_t uplink) const {
    return first_leaf_link_ + 2 * (leaf * uplinks_ + uplink);
  }
  std::int32_t spine_link(std::int32_t pod, std::int32_t spine, std::int32_t core) const {
    return first_spine_link_ + 2 * ((pod * uplinks_ + spine) * cores_per_spine_ + core);
  }
  bool choose_levels(const ClosSizes& sizes, Problems& problems);
  void append_links(const std::vector<double>& leaf_capacity, std::vector<Link>& links);

  std::vector<std::int32_t> leaf_of_port_;
  int levels_ = 1;
  // With adaptive spreading a leaf's uplinks are one link to one vertex that stands for all
  // `tier_width_` spines; with ECMP each is its own, and spine i takes uplink i of every leaf.
  std::int32_t uplinks_ = 1, tier_width_ = 1;
  std::int32_t cores_per_spine_ = 1, core_width_ = 1;
  std::int32_t leaves_per_pod_ = 1;
  std::int32_t first_leaf_link_ = 0, first_spine_link_ = 0;
  double hop_latency_s_ = 0;
};

bool Clos::choose_levels(const ClosSizes& sizes, Problems& problems) {
  levels_ = leaves_ == 1 ? 1 : leaves_ <= sizes.ports ? 2 : 3;
  if (levels_ > sizes.max_levels) {
    add_problem(
        problems, "/fabric/switch_ports",
        fmt::format("two levels of {}-port switches join at most {} leaves, and this "
                    "cluster needs {}",
                    sizes.ports, sizes.ports, leaves_),
        "use the fabric \"fat-tree\", which has a third level, or switches with more ports");
    return false;
  }
  leaves_per_pod_ = levels_ < 3 ? leaves_ : sizes.leaves_per_pod;
  if (pods() > sizes.ports) {
    add_problem(problems, "/fabric/switch_ports",
                fmt::format("three levels of {}-port switches join at most {} leaves, and this "
                            "cluster needs {}",
                            sizes.ports, sizes.ports * sizes.leaves_per_pod, leaves_),
                "use switches with more ports");
    return false;
  }
  return true;
}

bool Clos::cable(const FabricSpec& spec, const ClosSizes& sizes, const PortTable& table,
                 std::vector<Link>& links, Problems& problems) {
  if (!choose_levels(sizes, problems)) return false;
  hop_latency_s_ = hop_latency_s(spec);
  std::vector<double> capacity(static_cast<std::size_t>(leaves_), 0);
  std::vector<int> plugged(static_cast<std::size_t>(leaves_), 0);
  int nics_a_port = 1;
  for (std::size_t p = 0; p < table.ports.size(); ++p) {
    const auto leaf = static_cast<std::size_t>(leaf_of_port_[p]);
    capacity[leaf] += table.ports[p].bandwidth_bytes_per_s / spec.oversubscription;
    plugged[leaf] += table.ports[p].nics;
    nics_a_port = std::max(nics_a_port, table.ports[p].nics);
  }
  const int fullest = *std::max_element(plugged.begin(), plugged.end());
  const auto uplinks_at = [&](int nics) {
    return std::max(1, static_cast<int>(std::ceil(fullest / spec.oversubscription / nics - 1e-9)));
  };
  tier_width_ = uplinks_at(1);
  core_width_ = levels_ < 3 ? 1 : leaves_per_pod_;
  if (spec.spreading == Spreading::Ecmp) {
    // The NICs of one GPU send at once: k of them are hashed together, to uplinks of k cables.
    uplinks_ = uplinks_at(nics_a_port);
    cores_per_spine_ = core_width_;
    core_width_ = tier_width_ = nics_a_port;
  } else {
    core_width_ *= tier_width_;
  }
  append_links(capacity, links);
  return true;
}

void Clos::append_links(const std::vector<double>& leaf_capacity, std::vector<Link>& links) {
  if (levels_ == 1) return;
  const auto append_pair = [&](LinkKind up, LinkKind down, double bandwidth, std::int32_t owner,
                               std::int32_t index) {
    links.push_back({.kind = up,
                     .bandwidth_bytes_per_s = bandwidth,
                     .latency_s = hop_latency_s_,
                     .owner = owner,
                     .index = index});
    links.push_back(links.back());
    links.back().kind = down;
  };
  first_leaf_link_ = static_cast<std::int32_t>(links.size());
  for (std::int32_t leaf = 0; leaf < leaves_; ++leaf)
    for (std::int32_t i = 0; i < uplinks_; ++i)
      append_pair(LinkKind::LeafUp, LinkKind::LeafDown,
                  leaf_capacity[static_cast<std::size_t>(leaf)] / uplinks_, leaf, i);
  first_spine_link_ = static_cast<std::int32_t>(links.size());
  if (levels_ < 3) return;
  for (std::int32_t p = 0; p < pods(); ++p) {
    double capacity = 0;
    for (std::int32_t leaf = p * leaves_per_pod_;
         leaf < std::min(leaves_, (p + 1) * leaves_per_pod_); ++leaf)
      capacity += leaf_capacity[static_cast<std::size_t>(leaf)];
    for (std::int32_t i = 0; i < uplinks_ * cores_per_spine_; ++i)
      append_pair(LinkKind::SpineUp, LinkKind::SpineDown, capacity / uplinks_ / cores_per_spine_, p,
                  i);
  }
}

void Clos::append_graph(const std::vector<Link>& links, GraphParts& parts) const {
  const auto first_leaf = static_cast<std::int32_t>(parts.vertices.size());
  for (std::int32_t leaf = 0; leaf < leaves_; ++leaf)
    parts.vertices.push_back({.kind = VertexKind::Leaf, .index = leaf});
  if (levels_ == 1) return;
  const auto first_spine = static_cast<std::int32_t>(parts.vertices.size());
  for (std::int32_t s = 0; s < pods() * uplinks_; ++s)
    parts.vertices.push_back({.kind = VertexKind::Spine, .index = s, .count = tier_width_});
  for (std::int32_t leaf = 0; leaf < leaves_; ++leaf)
    for (std::int32_t i = 0; i < uplinks_; ++i) {
      const std::int32_t spine = first_spine + pod(leaf) * uplinks_ + i;
      append_edge(parts, first_leaf + leaf, spine, leaf_link(leaf, i), links);
      append_edge(parts, spine, first_leaf + leaf, leaf_link(leaf, i) + 1, links);
    }
  if (levels_ < 3) return;
  const auto first_core = static_cast<std::int32_t>(parts.vertices.size());
  for (std::int32_t c = 0; c < uplinks_ * cores_per_spine_; ++c)
    parts.vertices.push_back({.kind = VertexKind::Core, .index = c, .count = core_width_});
  for (std::int32_t p = 0; p < pods(); ++p)
    for (std::int32_t i = 0; i < uplinks_; ++i)
      for (std::int32_t j = 0; j < cores_per_spine_; ++j) {
        const std::int32_t spine = first_spine + p * uplinks_ + i;
        const std::int32_t core = first_core + i * cores_per_spine_ + j;
        append_edge(parts, spine, core, spine_link(p, i, j), links);
        append_edge(parts, core, spine, spine_link(p, i, j) + 1, links);
      }
}

/// Fills leaves with whole nodes in order. False with a problem where a node is too wide.
bool plug_nodes(const ClosSizes& sizes, const PortTable& table, Clos& clos, Problems& problems) {
  std::int64_t all_nics = 0;
  for (const Port& port : table.ports) all_nics += port.nics;
  const int room = all_nics <= sizes.ports ? sizes.ports : sizes.down_ports;
  int used = 0;
  clos.leaves_ = 1;
  clos.leaf_of_port().assign(table.ports.size(), 0);
  for (int n = 0; n < table.nodes(); ++n) {
    int wanted = 0;
    for (std::int32_t p = table.first_port[static_cast<std::size_t>(n)];
         p < table.first_port[static_cast<std::size_t>(n) + 1]; ++p)
      wanted += table.ports[static_cast<std::size_t>(p)].nics;
    if (wanted > room) {
      add_problem(
          problems, "/fabric/switch_ports",
          fmt::format("a leaf of a {}-port switch has {} ports for hosts, and a node has {} "
                      "NICs",
                      sizes.ports, room, wanted),
          "use switches with more ports, or \"rail-optimized\"");
      return false;
    }
    if (used + wanted > room) {
      ++clos.leaves_;
      used = 0;
    }
    used += wanted;
    for (std::int32_t p = table.first_port[static_cast<std::size_t>(n)];
         p < table.first_port[static_cast<std::size_t>(n) + 1]; ++p)
      clos.leaf_of_port()[static_cast<std::size_t>(p)] = clos.leaves_ - 1;
  }
  return true;
}

/// Nodes that share one set of rail leaves; 0 with a problem where none can.
int rail_group_nodes(const FabricSpec& spec, const ClosSizes& sizes, int rails, int nics_a_port,
                     int nodes, Problems& problems) {
  const int room =
      rails == 1 && nodes * nics_a_port <= sizes.ports ? sizes.ports : sizes.down_ports;
  const int most = room / nics_a_port;
  if (most < 1)
    add_problem(problems, "/fabric/switch_ports",
                fmt::format("a leaf of a {}-port switch has {} ports for hosts, and a GPU has {} "
                            "NICs",
                            sizes.ports, room, nics_a_port),
                "use switches with more ports");
  if (spec.nodes_per_rail_group <= 0) return most;
  if (most >= 1 && spec.nodes_per_rail_group > most)
    add_problem(problems, "/fabric/nodes_per_rail_group",
                fmt::format("a leaf of a {}-port switch has ports for {} nodes", sizes.ports, most),
                fmt::format("at most {}, or switches with more ports", most));
  return spec.nodes_per_rail_group <= most ? spec.nodes_per_rail_group : 0;
}

bool plug_rails(const FabricSpec& spec, ClosSizes& sizes, const PortTable& table, Clos& clos,
                Problems& problems) {
  int rails = 1, nics_a_port = 1;
  for (const Port& port : table.ports) {
    rails = std::max(rails, port.rail + 1);
    nics_a_port = std::max(nics_a_port, port.nics);
  }
  const int group = rail_group_nodes(spec, sizes, rails, nics_a_port, table.nodes(), problems);
  if (group < 1) return false;
  // Pods hold whole rail groups where they can.
  if (rails <= sizes.leaves_per_pod) sizes.leaves_per_pod -= sizes.leaves_per_pod % rails;
  const int groups = (table.nodes() + group - 1) / group;
  std::vector<std::int32_t> leaf_of_rail(static_cast<std::size_t>(groups) * rails, -1);
  clos.leaf_of_port().reserve(table.ports.size());
  for (const Port& port : table.ports) {
    std::int32_t& leaf =
        leaf_of_rail[static_cast<std::size_t>(port.node / group) * rails + port.rail];
    if (leaf < 0) leaf = clos.leaves_++;
    clos.leaf_of_port().push_back(leaf);
  }
  return true;
}

}  // namespace

std::unique_ptr<Fabric> make_clos(const FabricSpec& spec, const PortTable& table,
                                  std::vector<Link>& links, Problems& problems) {
  auto clos = std::make_unique<Clos>();
  const double o = spec.oversubscription;
  ClosSizes sizes;
  sizes.ports = spec.switch_ports;
  sizes.down_ports = static_cast<int>(std::floor(sizes.ports * o / (1 + o) + 1e-9));
  sizes.leaves_per_pod = std::max(1, sizes.ports / 2);
  sizes.max_levels = spec.kind == FabricKind::LeafSpine ? 2 : 3;
  const bool plugged = spec.kind == FabricKind::RailOptimized
                           ? plug_rails(spec, sizes, table, *clos, problems)
                           : plug_nodes(sizes, table, *clos, problems);
  if (!plugged || !clos->cable(spec, sizes, table, links, problems)) return nullptr;
  return clos;
}

}  // namespace rehearse
