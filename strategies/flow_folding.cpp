#include "strategies/flow_folding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Finaliser of SplitMix64 (Steele et al. 2014): spreads every input bit over the whole word.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

std::uint64_t combine(std::uint64_t seed, std::uint64_t value) { return mix(seed ^ mix(value)); }

/// Counts different colours, 0 left out; an open-addressing set that is emptied for each count.
class ColourCounter {
 public:
  explicit ColourCounter(std::size_t most) : slots_(std::bit_ceil(2 * most + 1)) {}

  std::size_t count(const std::vector<std::uint64_t>& colours) {
    std::fill(slots_.begin(), slots_.end(), 0);
    std::size_t different = 0;
    for (const std::uint64_t colour : colours) {
      std::size_t at = colour & (slots_.size() - 1);
      while (slots_[at] != 0 && slots_[at] != colour) at = (at + 1) & (slots_.size() - 1);
      if (slots_[at] == colour) continue;
      slots_[at] = colour;
      ++different;
    }
    return different;
  }

 private:
  std::vector<std::uint64_t> slots_;
};

}  // namespace

double payload_efficiency(LinkKind kind) {
  switch (kind) {
    case LinkKind::NvlinkUp:
    case LinkKind::NvlinkDown:
      // NCCL's own topology model gives an NVLink 4 of 25 GB/s 20.6 GB/s of payload, an NVLink 3
      // 20 GB/s (NCCL 2.28.9 src/graph/topo.h): 370 of 450 GB/s and 240 of 300 GB/s.
      return 0.82;
    case LinkKind::PcieUp:
    case LinkKind::PcieDown:
      // PCIe 4/5 with 256-byte payloads: 256 / (256 + 26 header and framing) and flow control.
      return 0.85;
    default:
      return kNicGoodput;
  }
}

double payload_bytes_per_s(const Link& link) {
  return link.bandwidth_bytes_per_s *
         (link.payload_share > 0 ? link.payload_share : payload_efficiency(link.kind));
}

FlowFolding::FlowFolding(const Cluster& cluster, const std::vector<PhysicalPattern>& patterns,
                         bool fold)
    : cluster_(cluster), patterns_(patterns), fold_(fold) {
  const auto& links = cluster.links();
  link_colours_.resize(links.size());
  link_loads_.assign(links.size(), 0);
  std::uint64_t pattern_number = 0;
  for (const PhysicalPattern& pattern : patterns) {
    ++pattern_number;
    for (const PhysicalFlow& flow : pattern.flows) {
      const Route route = cluster.route(flow.from, flow.to);
      crossings_.push_back({static_cast<std::int32_t>(route_links_.size()), route.count});
      for (int hop = 0; hop < route.count; ++hop) {
        route_links_.push_back(route.links[hop].value);
        ++link_loads_[static_cast<std::size_t>(route.links[hop].value)];
      }
      flow_colours_.push_back(
          combine(mix(pattern_number), std::bit_cast<std::uint64_t>(flow.bytes_factor)));
    }
  }
  find_ample_links();
  leave_out_ample_links();
  for (std::size_t i = 0; i < links.size(); ++i)
    link_colours_[i] = combine(static_cast<std::uint64_t>(links[i].kind),
                               std::bit_cast<std::uint64_t>(payload_bytes_per_s(links[i])));
  if (fold_) refine();
}

void FlowFolding::find_ample_links() {
  const auto& links = cluster_.links();
  const auto capacity = [&](std::int32_t link) {
    return payload_bytes_per_s(links[static_cast<std::size_t>(link)]);
  };
  // Neighbours whose capacities bound a link's traffic: those before it on the way up, those
  // after it on the way down. Looking one way only on each side, no two links vouch for each other.
  std::vector<std::pair<std::int32_t, std::int32_t>> neighbours;  // (link, neighbour)
  for (const Crossing& crossing : crossings_)
    for (int hop = 0; hop < crossing.count; ++hop) {
      const std::int32_t* const at = route_links_.data() + crossing.first + hop;
      const LinkKind kind = links[static_cast<std::size_t>(*at)].kind;
      if (hop > 0 && (kind == LinkKind::LeafUp || kind == LinkKind::SpineUp))
        neighbours.emplace_back(at[0], at[-1]);
      if (hop + 1 < crossing.count && (kind == LinkKind::LeafDown || kind == LinkKind::SpineDown))
        neighbours.emplace_back(at[0], at[1]);
    }
  std::sort(neighbours.begin(), neighbours.end());
  neighbours.erase(std::unique(neighbours.begin(), neighbours.end()), neighbours.end());
  is_ample_.assign(links.size(), false);
  for (std::size_t i = 0; i < neighbours.size();) {
    const std::int32_t link = neighbours[i].first;
    double bound = 0;
    for (; i < neighbours.size() && neighbours[i].first == link; ++i)
      bound += capacity(neighbours[i].second);
    is_ample_[static_cast<std::size_t>(link)] = bound <= capacity(link) * (1 + 1e-12);
  }
}

void FlowFolding::leave_out_ample_links() {
  whole_crossings_ = crossings_;
  whole_links_ = route_links_;
  route_links_.clear();
  for (std::size_t f = 0; f < crossings_.size(); ++f) {
    crossings_[f].first = static_cast<std::int32_t>(route_links_.size());
    for (int hop = 0; hop < whole_crossings_[f].count; ++hop) {
      const std::int32_t link =
          whole_links_[static_cast<std::size_t>(whole_crossings_[f].first + hop)];
      if (!is_ample_[static_cast<std::size_t>(link)]) route_links_.push_back(link);
    }
    crossings_[f].count = static_cast<std::int32_t>(route_links_.size()) - crossings_[f].first;
  }
  for (std::size_t l = 0; l < link_loads_.size(); ++l)
    if (is_ample_[l]) link_loads_[l] = 0;
}

/// Ample links and what the graph's tasks make them carry in a step, alike ones together.
void FlowFolding::add_ample_links(StepGraph& graph) const {
  std::vector<double> pattern_bytes(patterns_.size(), 0), carried(is_ample_.size(), 0);
  for (const Task& task : graph.tasks)
    if (task.kind == TaskKind::Comm && task.payload >= 0)
      pattern_bytes[static_cast<std::size_t>(task.payload)] += task.bytes;
  std::size_t flow = 0;
  for (std::size_t p = 0; p < patterns_.size(); ++p)
    for (const PhysicalFlow& physical : patterns_[p].flows) {
      const Crossing& crossing = whole_crossings_[flow++];
      for (int hop = 0; hop < crossing.count; ++hop)
        carried[static_cast<std::size_t>(
            whole_links_[static_cast<std::size_t>(crossing.first + hop)])] +=
            pattern_bytes[p] * physical.bytes_factor;
    }
  std::map<std::tuple<LinkKind, double, double>, std::size_t> alike;
  for (std::size_t l = 0; l < is_ample_.size(); ++l) {
    if (!is_ample_[l]) continue;
    const Link& link = cluster_.links()[l];
    const double bandwidth = payload_bytes_per_s(link);
    // Sums of the same bytes in another order differ in their last bits.
    const double rounded = std::round(carried[l]);
    const auto [at, is_new] = alike.try_emplace(
        {link.kind, bandwidth, fold_ ? rounded : static_cast<double>(l)}, graph.links.size());
    if (is_new)
      graph.links.push_back({bandwidth, 1, LinkId{static_cast<std::int32_t>(l)}, carried[l]});
    else
      ++graph.links[at->second].members;
  }
}

void FlowFolding::refine() {
  // Classes only ever split, so the sum of their counts grows until the partition is equitable.
  std::size_t classes = 0;
  std::vector<std::uint64_t> load(link_colours_.size());
  // Idle links are of no class: colour 0, which no hash of a loaded one takes in practice.
  for (std::size_t l = 0; l < link_colours_.size(); ++l)
    if (link_loads_[l] == 0) link_colours_[l] = 0;
  ColourCounter flow_counter(flow_colours_.size()), link_counter(link_colours_.size());
  for (;;) {
    std::fill(load.begin(), load.end(), 0);
    for (std::size_t f = 0; f < crossings_.size(); ++f)
      for (int hop = 0; hop < crossings_[f].count; ++hop)
        load[static_cast<std::size_t>(
            route_links_[static_cast<std::size_t>(crossings_[f].first + hop)])] +=
            mix(flow_colours_[f]);  // a sum, so that the order of flows does not matter
    for (std::size_t l = 0; l < load.size(); ++l)
      if (load[l] != 0) link_colours_[l] = combine(link_colours_[l], load[l]);
    for (std::size_t f = 0; f < crossings_.size(); ++f)
      for (int hop = 0; hop < crossings_[f].count; ++hop)
        flow_colours_[f] =
            combine(flow_colours_[f],
                    link_colours_[static_cast<std::size_t>(
                        route_links_[static_cast<std::size_t>(crossings_[f].first + hop)])]);
    const std::size_t now = flow_counter.count(flow_colours_) + link_counter.count(link_colours_);
    if (now == classes) return;
    ensure(now > classes, "colour refinement only splits classes");
    classes = now;
  }
}

void FlowFolding::write_flow(StepGraph& graph, std::int32_t flow,
                             std::vector<std::int32_t>& sim_link_of) const {
  const Crossing& crossing = crossings_[static_cast<std::size_t>(flow)];
  PatternFlow out;
  out.first_hop = static_cast<std::int32_t>(graph.hops.size());
  for (int hop = 0; hop < crossing.count; ++hop) {
    const std::int32_t link = route_links_[static_cast<std::size_t>(crossing.first + hop)];
    const std::int32_t sim_link = sim_link_of[static_cast<std::size_t>(link)];
    // A class of links that the flow crosses twice constrains it once: the weight already counts
    // every member's crossing of one link.
    const auto seen = std::find_if(graph.hops.begin() + out.first_hop, graph.hops.end(),
                                   [&](const Hop& h) { return h.link == sim_link; });
    if (fold_ && seen != graph.hops.end()) continue;
    graph.hops.push_back({sim_link, 1});
  }
  out.hop_count = static_cast<std::int32_t>(graph.hops.size()) - out.first_hop;
  graph.flows.push_back(out);
}

void FlowFolding::write_to(StepGraph& graph) const {
  // Simulated links: one a class (or one each), in the order of their first member.
  const auto& links = cluster_.links();
  std::vector<std::int32_t> sim_link_of(links.size(), -1);
  std::unordered_map<std::uint64_t, std::int32_t> by_colour;
  for (std::size_t l = 0; l < links.size(); ++l) {
    if (link_loads_[l] == 0) continue;
    const auto next = static_cast<std::int32_t>(graph.links.size());
    std::int32_t index = next;
    if (fold_) index = by_colour.try_emplace(link_colours_[l], next).first->second;
    sim_link_of[l] = index;
    if (index < next) {
      ++graph.links[static_cast<std::size_t>(index)].members;
      continue;
    }
    SimLink link;
    link.bandwidth_bytes_per_s = payload_bytes_per_s(links[l]);
    link.representative = LinkId{static_cast<std::int32_t>(l)};
    graph.links.push_back(link);
  }

  std::int32_t flow = 0;
  std::unordered_map<std::uint64_t, std::int32_t> flow_of_colour;
  std::unordered_map<std::int32_t, std::int32_t> crossings_of_link;
  for (const PhysicalPattern& pattern : patterns_) {
    Pattern out;
    out.first_flow = static_cast<std::int32_t>(graph.flows.size());
    flow_of_colour.clear();
    const std::int32_t first = flow;
    for (const PhysicalFlow& physical : pattern.flows) {
      const std::uint64_t colour = flow_colours_[static_cast<std::size_t>(flow)];
      const auto index = static_cast<std::int32_t>(graph.flows.size());
      if (!fold_ || flow_of_colour.try_emplace(colour, index).second) {
        write_flow(graph, flow, sim_link_of);
        PatternFlow& written = graph.flows.back();
        written.bytes_factor = physical.bytes_factor;
        if (fold_) {
          // Weight of a hop: flows of this class over the representative's own link.
          crossings_of_link.clear();
          for (std::int32_t other = first;
               other < first + static_cast<std::int32_t>(pattern.flows.size()); ++other) {
            if (flow_colours_[static_cast<std::size_t>(other)] != colour) continue;
            const Crossing& c = crossings_[static_cast<std::size_t>(other)];
            for (int hop = 0; hop < c.count; ++hop)
              ++crossings_of_link[route_links_[static_cast<std::size_t>(c.first + hop)]];
          }
          const Crossing& own = crossings_[static_cast<std::size_t>(flow)];
          for (int hop = 0; hop < own.count; ++hop) {
            const std::int32_t link = route_links_[static_cast<std::size_t>(own.first + hop)];
            for (std::int32_t h = written.first_hop; h < written.first_hop + written.hop_count; ++h)
              if (graph.hops[static_cast<std::size_t>(h)].link ==
                  sim_link_of[static_cast<std::size_t>(link)])
                graph.hops[static_cast<std::size_t>(h)].weight = crossings_of_link[link];
          }
        }
      }
      ++flow;
    }
    out.flow_count = static_cast<std::int32_t>(graph.flows.size()) - out.first_flow;
    graph.patterns.push_back(out);
  }
  add_ample_links(graph);
}

}  // namespace rehearse
