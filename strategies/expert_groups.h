#pragma once
#include <numeric>
#include <vector>

#include "plan/plan.h"
#include "strategies/flow_folding.h"
#include "topologies/cluster.h"

namespace rehearse {

// Expert parallelism: inside a stage, `ep` consecutive groups of the tensor ranks that share one
// expert hold a layer's experts, E/ep each. They are made of whole tensor groups of consecutive
// data ranks, of each the context ranks one after the other; whoever holds the same experts in the
// other groups has copies of them.

/// Tensor ranks that share one expert.
inline int expert_tensor_ranks(const Plan& plan) {
  return plan.experts.tp > 0 ? plan.experts.tp : plan.tp;
}
/// Data and context ranks whose tensor groups together hold all experts of a layer.
inline int ranks_with_all_experts(const Plan& plan) {
  return plan.ep == 1 ? 1 : plan.ep * expert_tensor_ranks(plan) / plan.tp;
}
/// Replicas that are whole in as many groups: those go layer by layer together.
inline int replicas_with_all_experts(const Plan& plan) {
  const int ranks = ranks_with_all_experts(plan);
  return ranks / std::gcd(ranks, plan.cp);
}
/// Ranks that hold copies of the same experts, and reduce their gradients. REQUIRES: dp resolved.
inline int expert_copies(const Plan& plan) {
  return plan.dp * plan.cp / ranks_with_all_experts(plan);
}

/// Of these, the ones that share out gradients, states or weights of the experts: with HSDP those
/// inside one set of shards, which holds all experts a whole number of times.
inline int expert_sharing_copies(const Plan& plan) {
  return shard_ranks(plan) * plan.cp / ranks_with_all_experts(plan);
}

/// What one rank's rows put on the network, as multiples of the rows it sends.
struct ExpertTraffic {
  double network = 0;  ///< leaves the node, and as much arrives
  double inside = 0;   ///< moves on the node's own links
};
/// A group of `ranks` on `nodes` nodes, `experts` experts of which a token passes `active`; dealt
/// out evenly. With a `node_limit` a token crosses the network once for each node that its experts
/// lie on, chosen from at most that many nodes, and is copied inside (DeepSeek-V3, arXiv
/// 2412.19437, §3.2.2); else once for each expert.
struct ExpertDeal {
  int ranks = 1, nodes = 1, experts = 1, active = 1, node_limit = 0;
};
ExpertTraffic expert_traffic(const ExpertDeal& deal);

/// Nodes that the `active` experts of a token lie on, on average, drawn from `nodes` nodes with
/// `experts_per_node` each: nodes · (1 − C(E − e, k) / C(E, k)).
double nodes_of_token(int nodes, int experts_per_node, int active);

/// The flows of one dispatch or combine of a group on several nodes. Between nodes, rows go from
/// each GPU to its peer of the same index, and on inside that node (NCCL's PXN, DeepEP); what
/// moves inside is put down where its links are the narrower ones.
std::vector<PhysicalFlow> expert_flows(const Cluster& cluster, const std::vector<GpuId>& group,
                                       const ExpertTraffic& traffic);

}  // namespace rehearse
