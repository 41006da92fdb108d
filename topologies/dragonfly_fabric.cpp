#include <fmt/format.h>

#include <algorithm>

#include "topologies/fabric.h"

// Dragonfly (Kim, Dally, Scott, Abts, ISCA 2008): a switch has p ports for hosts, a−1 for the other
// switches of its group and h global ones. Balanced: a = 2p = 2h, so a switch with P ports has
// p = ⌊(P+1)/4⌋; with a group size a given, p = h = ⌊(P−a+1)/2⌋. A system has at most a·h + 1
// groups. Where fewer are built the spare global ports double the cables between groups, and in a
// group that is not full the spare local ports those between its switches.
//
// Global cable c of group G (0 ≤ c < a·h, at switch ⌊c/h⌋) is the j-th of the m = ⌊a·h/(groups−1)⌋
// cables to group H when c = o·m + j, with o = (H−G−1) mod groups. With adaptive spreading those
// that join the same two switches are one link. Routes are minimal: at most one local hop, one
// global, one local; among equally short ones by hash.
// (Two global cables through a third group can be a hop shorter; minimal routing does not use
// them.)
//
// Where a GPU has k NICs, all of this counts ports of k times the rate, P/k of them a switch: its
// traffic leaves over all its NICs at once.

namespace rehearse {
namespace {

struct DragonflySizes {
  std::int32_t host_ports = 1;    ///< p of a switch
  std::int32_t switches = 1;      ///< a of a group
  std::int32_t global_ports = 0;  ///< h of a switch
  std::int32_t groups = 1;
  std::int32_t cables_a_pair = 0;  ///< m between two groups
  std::int32_t local_cables = 1;   ///< between two switches of a group
};

class Dragonfly : public Fabric {
 public:
  Dragonfly(const FabricSpec& spec, const DragonflySizes& sizes,
            std::vector<std::int32_t> switch_of_port, double cable_rate, std::vector<Link>& links);

  void append_way(std::int32_t from_port, std::int32_t to_port, std::uint64_t hash,
                  Route& route) const override {
    const std::int32_t from = switch_of(from_port), to = switch_of(to_port);
    if (from == to) return;
    const std::int32_t from_group = from / sizes_.switches, to_group = to / sizes_.switches;
    if (from_group == to_group) {
      append(route, local_link(from, to));
      return;
    }
    const std::int32_t j = choose_cable(from, to, hash);
    const std::int32_t exit = gateway(from_group, to_group, j);
    const std::int32_t entry = gateway(to_group, from_group, j);
    if (exit != from) append(route, local_link(from, exit));
    append(route, global_link(from_group, to_group, j));
    if (entry != to) append(route, local_link(entry, to));
  }

  std::int32_t switch_of(std::int32_t port) const override {
    return switch_of_port_[static_cast<std::size_t>(port)];
  }
  double exit_latency_s() const override { return hop_latency_s_; }
  void append_graph(const std::vector<Link>& links, GraphParts& parts) const override;

 private:
  struct Range {
    std::int32_t begin, end;
    bool empty() const { return begin >= end; }
  };

  std::int32_t offset(std::int32_t group, std::int32_t other) const {
    return (other - group - 1 + sizes_.groups) % sizes_.groups;
  }
  /// Switch at which cable j from one group to the other leaves.
  std::int32_t gateway(std::int32_t group, std::int32_t other, std::int32_t j) const {
    return group * sizes_.switches +
           (offset(group, other) * sizes_.cables_a_pair + j) / sizes_.global_ports;
  }
  /// Those cables from `group` to `other` that leave at switch `at` of the group.
  Range cables_at(std::int32_t at, std::int32_t group, std::int32_t other) const {
    const std::int32_t first = offset(group, other) * sizes_.cables_a_pair;
    const std::int32_t port = (at - group * sizes_.switches) * sizes_.global_ports;
    return {std::max(0, port - first),
            std::min(sizes_.cables_a_pair, port + sizes_.global_ports - first)};
  }
  std::int32_t choose_cable(std::int32_t from, std::int32_t to, std::uint64_t hash) const {
    const std::int32_t from_group = from / sizes_.switches, to_group = to / sizes_.switches;
    const Range here = cables_at(from, from_group, to_group);
    const Range there = cables_at(to, to_group, from_group);
    Range best{std::max(here.begin, there.begin), std::min(here.end, there.end)};
    if (best.empty()) best = here.empty() || (!there.empty() && hash >> 63 != 0) ? there : here;
    if (best.empty()) best = {0, sizes_.cables_a_pair};
    return best.begin +
           static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(best.end - best.begin));
  }
  std::int32_t local_link(std::int32_t from, std::int32_t to) const {
    const std::int32_t a = sizes_.switches, place = to % a;
    return first_local_ + from * (a - 1) + (place < from % a ? place : place - 1);
  }
  std::int32_t global_link(std::int32_t group, std::int32_t other, std::int32_t j) const {
    return link_of_cable_[static_cast<std::size_t>(
        (group * (sizes_.groups - 1) + offset(group, other)) * sizes_.cables_a_pair + j)];
  }
  /// The links from one group to another: cables one by one, or those that join the same switches.
  void append_global_links(std::int32_t group, std::int32_t other, double cable_rate, bool trunks,
                           std::vector<Link>& links);

  DragonflySizes sizes_;
  std::vector<std::int32_t> switch_of_port_;
  std::int32_t first_local_ = 0;
  std::vector<std::int32_t> link_of_cable_;  ///< [group][offset][cable]
  double hop_latency_s_ = 0;
};

Dragonfly::Dragonfly(const FabricSpec& spec, const DragonflySizes& sizes,
                     std::vector<std::int32_t> switch_of_port, double cable_rate,
                     std::vector<Link>& links)
    : sizes_(sizes),
      switch_of_port_(std::move(switch_of_port)),
      hop_latency_s_(hop_latency_s(spec)) {
  const std::int32_t switches = sizes_.groups * sizes_.switches;
  first_local_ = static_cast<std::int32_t>(links.size());
  for (std::int32_t s = 0; s < switches; ++s)
    for (std::int32_t i = 0; i + 1 < sizes_.switches; ++i)
      links.push_back({.kind = LinkKind::Group,
                       .bandwidth_bytes_per_s = cable_rate * sizes_.local_cables,
                       .latency_s = hop_latency_s_,
                       .owner = s,
                       .index = i});
  const bool trunks = spec.spreading == Spreading::Adaptive;
  for (std::int32_t g = 0; g < sizes_.groups; ++g)
    for (std::int32_t o = 0; o + 1 < sizes_.groups; ++o)
      append_global_links(g, (g + o + 1) % sizes_.groups, cable_rate, trunks, links);
}

void Dragonfly::append_global_links(std::int32_t group, std::int32_t other, double cable_rate,
                                    bool trunks, std::vector<Link>& links) {
  for (std::int32_t j = 0; j < sizes_.cables_a_pair; ++j) {
    if (trunks && j > 0 && gateway(group, other, j) == gateway(group, other, j - 1) &&
        gateway(other, group, j) == gateway(other, group, j - 1))
      links.back().bandwidth_bytes_per_s += cable_rate;
    else
      links.push_back({.kind = LinkKind::Global,
                       .bandwidth_bytes_per_s = cable_rate,
                       .latency_s = hop_latency_s_,
                       .owner = group,
                       .index = offset(group, other) * sizes_.cables_a_pair + j});
    link_of_cable_.push_back(static_cast<std::int32_t>(links.size()) - 1);
  }
}

void Dragonfly::append_graph(const std::vector<Link>& links, GraphParts& parts) const {
  const auto first = static_cast<std::int32_t>(parts.vertices.size());
  const std::int32_t switches = sizes_.groups * sizes_.switches;
  for (std::int32_t s = 0; s < switches; ++s)
    parts.vertices.push_back({.kind = VertexKind::Switch, .index = s});
  for (std::int32_t from = 0; from < switches; ++from) {
    const std::int32_t group = from / sizes_.switches * sizes_.switches;
    for (std::int32_t to = group; to < group + sizes_.switches; ++to)
      if (to != from) append_edge(parts, first + from, first + to, local_link(from, to), links);
  }
  for (std::int32_t g = 0; g < sizes_.groups; ++g)
    for (std::int32_t other = 0; other < sizes_.groups; ++other)
      for (std::int32_t j = 0; other != g && j < sizes_.cables_a_pair; ++j)
        if (j == 0 || global_link(g, other, j) != global_link(g, other, j - 1))
          append_edge(parts, first + gateway(g, other, j), first + gateway(other, g, j),
                      global_link(g, other, j), links);
}

/// p and h of a switch and the most switches of a group; host_ports < 1: the ports do not suffice.
DragonflySizes balanced(const FabricSpec& spec, int switch_ports) {
  DragonflySizes sizes;
  if (spec.dragonfly_group_switches > 0) {
    sizes.switches = spec.dragonfly_group_switches;
    sizes.host_ports = (switch_ports - sizes.switches + 1) / 2;
  } else {
    sizes.host_ports = (switch_ports + 1) / 4;
    sizes.switches = 2 * sizes.host_ports;
  }
  sizes.global_ports = sizes.host_ports;
  return sizes;
}

/// Plugs whole nodes into switches in order; empty where a node is wider than a switch.
std::vector<std::int32_t> plug(const PortTable& table, int host_ports) {
  std::vector<std::int32_t> switch_of_port;
  int used = 0;
  std::int32_t at = 0;
  for (int n = 0; n < table.nodes(); ++n) {
    const auto first = static_cast<std::size_t>(table.first_port[static_cast<std::size_t>(n)]);
    const auto end = static_cast<std::size_t>(table.first_port[static_cast<std::size_t>(n) + 1]);
    const int wanted = static_cast<int>(end - first);
    if (wanted > host_ports) return {};
    if (used + wanted > host_ports) {
      ++at;
      used = 0;
    }
    used += wanted;
    switch_of_port.insert(switch_of_port.end(), end - first, at);
  }
  return switch_of_port;
}

}  // namespace

std::unique_ptr<Fabric> make_dragonfly(const FabricSpec& spec, const PortTable& table,
                                       std::vector<Link>& links, Problems& problems) {
  int nics = 1;           // of a GPU that has several
  double cable_rate = 0;  // cables run at the rate of the fastest port
  for (const Port& port : table.ports) {
    nics = std::max(nics, port.nics);
    cable_rate = std::max(cable_rate, port.bandwidth_bytes_per_s);
  }
  const int switch_ports = spec.switch_ports / nics;
  DragonflySizes sizes = balanced(spec, switch_ports);
  std::vector<std::int32_t> switch_of_port;
  if (sizes.host_ports >= 1) switch_of_port = plug(table, sizes.host_ports);
  if (switch_of_port.empty()) {
    add_problem(problems, "/fabric/switch_ports",
                fmt::format("a dragonfly switch of {} ports has {} for hosts, fewer than the NICs "
                            "of one node",
                            spec.switch_ports, nics * std::max(0, sizes.host_ports)),
                "use switches with more ports, or fewer switches a group");
    return nullptr;
  }
  const std::int32_t switches = switch_of_port.back() + 1;
  sizes.groups = (switches + sizes.switches - 1) / sizes.switches;
  if (sizes.groups > sizes.switches * sizes.global_ports + 1) {
    add_problem(problems, "/fabric/switch_ports",
                fmt::format("groups of {} switches with {} global ports each join at most {} "
                            "groups, and this cluster needs {}",
                            sizes.switches, sizes.global_ports,
                            sizes.switches * sizes.global_ports + 1, sizes.groups),
                "use switches with more ports");
    return nullptr;
  }
  sizes.switches = (switches + sizes.groups - 1) / sizes.groups;
  const std::int32_t global_used = sizes.groups > 1 ? sizes.global_ports : 0;
  if (sizes.groups > 1)
    sizes.cables_a_pair = sizes.switches * sizes.global_ports / (sizes.groups - 1);
  if (sizes.switches > 1)
    sizes.local_cables = (switch_ports - sizes.host_ports - global_used) / (sizes.switches - 1);
  return std::make_unique<Dragonfly>(spec, sizes, std::move(switch_of_port), cable_rate, links);
}

}  // namespace rehearse
