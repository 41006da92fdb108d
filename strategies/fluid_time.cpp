#include "strategies/fluid_time.h"

#include <algorithm>
#include <limits>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Classes of flows on classes of links, from a graph that holds nothing but one pattern.
class Fluid {
 public:
  explicit Fluid(const StepGraph& graph) : graph_(graph) {
    for (const PatternFlow& flow : graph.flows) left_.push_back(flow.bytes_factor);
    rate_.resize(left_.size());
  }

  double run() {
    double elapsed = 0;
    while (fill_rates()) {
      double step = std::numeric_limits<double>::infinity();
      for (std::size_t f = 0; f < left_.size(); ++f)
        if (left_[f] > 0) step = std::min(step, left_[f] / rate_[f]);
      for (std::size_t f = 0; f < left_.size(); ++f) {
        if (left_[f] <= 0) continue;
        // Flows that end together end exactly, whatever the last bit says.
        const bool ends = left_[f] / rate_[f] <= step * (1 + 1e-12);
        left_[f] = ends ? 0 : left_[f] - rate_[f] * step;
      }
      elapsed += step;
    }
    return elapsed;
  }

 private:
  /// One round of progressive filling; false when every flow is done.
  bool fill_rates() {
    std::vector<double> capacity;
    for (const SimLink& link : graph_.links) capacity.push_back(link.bandwidth_bytes_per_s);
    std::vector<bool> open(left_.size());
    std::size_t open_count = 0;
    for (std::size_t f = 0; f < left_.size(); ++f) {
      open[f] = left_[f] > 0;
      open_count += open[f];
    }
    if (open_count == 0) return false;
    while (open_count > 0) {
      std::vector<double> weight(capacity.size(), 0);
      for_hops(open, [&](std::size_t, const Hop& hop) {
        weight[static_cast<std::size_t>(hop.link)] += hop.weight;
      });
      double share = std::numeric_limits<double>::infinity();
      std::size_t bottleneck = 0;
      for (std::size_t l = 0; l < capacity.size(); ++l)
        if (weight[l] > 0 && capacity[l] / weight[l] < share) {
          share = capacity[l] / weight[l];
          bottleneck = l;
        }
      ensure(share < std::numeric_limits<double>::infinity(), "every flow crosses a link");
      std::vector<bool> fixed(open.size(), false);
      for_hops(open, [&](std::size_t f, const Hop& hop) {
        if (static_cast<std::size_t>(hop.link) == bottleneck) fixed[f] = true;
      });
      for_hops(fixed, [&](std::size_t, const Hop& hop) {
        capacity[static_cast<std::size_t>(hop.link)] -= hop.weight * share;
      });
      for (std::size_t f = 0; f < open.size(); ++f) {
        if (!fixed[f]) continue;
        rate_[f] = share;
        open[f] = false;
        --open_count;
      }
    }
    return true;
  }

  template <class Visit>
  void for_hops(const std::vector<bool>& chosen, Visit visit) const {
    for (std::size_t f = 0; f < chosen.size(); ++f) {
      if (!chosen[f]) continue;
      const PatternFlow& flow = graph_.flows[f];
      for (std::int32_t h = flow.first_hop; h < flow.first_hop + flow.hop_count; ++h)
        visit(f, graph_.hops[static_cast<std::size_t>(h)]);
    }
  }

  const StepGraph& graph_;
  std::vector<double> left_, rate_;
};

}  // namespace

double fluid_seconds_per_byte(const Cluster& cluster, const std::vector<PhysicalFlow>& flows) {
  if (flows.empty()) return 0;
  StepGraph graph;
  const std::vector<PhysicalPattern> patterns{{flows}};
  FlowFolding(cluster, patterns, true).write_to(graph);
  return Fluid(graph).run();
}

}  // namespace rehearse
