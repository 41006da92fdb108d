#pragma once
#include <cstdint>
#include <vector>

#include "plan/ids.h"
#include "strategies/step_graph.h"
#include "topologies/cluster.h"

namespace rehearse {

/// One flow between two GPUs, `bytes_factor` times its task's bytes.
struct PhysicalFlow {
  GpuId from, to;
  double bytes_factor = 1;
};

/// Flows that start at the same moment and carry the same traffic: what one task's pattern puts
/// on the network, on every GPU that the simulated devices stand for.
struct PhysicalPattern {
  std::vector<PhysicalFlow> flows;
};

/// Fills links, hops, flows and patterns of the graph from physical flows.
///
/// Unfolded, every flow and every link stands for itself. Folded, flows and links are sorted into
/// classes by colour refinement: two links fall in one class if they have the same kind and
/// bandwidth and carry the same number of flows of every class; two flows of a pattern fall in
/// one class if they cross the same classes of links. Such a partition is equitable, so max-min
/// fair sharing gives all members of a class the same rate, and simulating one flow a class,
/// which consumes (members on one link) times its rate, gives exactly the rates of all.
///
/// Links that can never be the narrowest are left out of the simulation: a link upwards whose
/// capacity is that of all links which feed it, and a link downwards whose capacity is that of all
/// links it feeds (the levels of a fabric that is not oversubscribed). Their limit follows from
/// the others', so no rate changes, and replicas that differ only in how far their flows climb
/// stay alike.
/// O(rounds · hops); rounds are few (≤ the diameter of the symmetry, 2–4 in practice).
class FlowFolding {
 public:
  FlowFolding(const Cluster& cluster, const std::vector<PhysicalPattern>& patterns, bool fold);

  /// Colour of each flow, patterns in order: flows of equal colour behave alike.
  const std::vector<std::uint64_t>& flow_colours() const { return flow_colours_; }
  void write_to(StepGraph& graph) const;

 private:
  struct Crossing {
    std::int32_t first = 0, count = 0;  ///< into route_links_
  };
  void refine();
  void find_ample_links();
  void leave_out_ample_links();
  void add_ample_links(StepGraph& graph) const;
  void write_flow(StepGraph& graph, std::int32_t flow,
                  std::vector<std::int32_t>& sim_link_of) const;

  const Cluster& cluster_;
  const std::vector<PhysicalPattern>& patterns_;
  bool fold_;
  std::vector<Crossing> crossings_;          ///< by flow
  std::vector<std::int32_t> route_links_;    ///< link ids of all flows, one after the other
  std::vector<std::uint64_t> flow_colours_;  ///< by flow
  std::vector<std::uint64_t> link_colours_;  ///< by link of the cluster
  std::vector<std::int32_t> link_loads_;     ///< by link: flows that cross it
  std::vector<bool> is_ample_;               ///< by link
  std::vector<Crossing> whole_crossings_;    ///< with ample links, into whole_links_
  std::vector<std::int32_t> whole_links_;
};

/// Payload that a link of this kind usually carries, as a share of its nominal bandwidth.
double payload_efficiency(LinkKind kind);
/// What a link carries of payload.
double payload_bytes_per_s(const Link& link);

}  // namespace rehearse
