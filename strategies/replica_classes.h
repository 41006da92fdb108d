#pragma once
#include <vector>

#include "plan/plan.h"
#include "plan/rank_map.h"
#include "topologies/cluster.h"

namespace rehearse {

/// Which data-parallel replicas do the same at the same time: their GPUs are of the same kind and
/// speed, they have as many micro-batches, and their pipeline transfers cross equally loaded links.
/// One of each class is simulated when replicas are folded.
struct ReplicaClasses {
  std::vector<std::vector<int>> members;  ///< by class, ascending; a class's first is simulated
  std::vector<int> class_of;              ///< by replica
};

/// Every replica a class of its own.
ReplicaClasses separate_replicas(int dp);

/// The coarsest classes that are safe, by colour refinement over all pipeline transfers and the
/// gradient rings of every stage (see FlowFolding).
ReplicaClasses fold_replicas(const Cluster& cluster, const Plan& plan, const RankMap& ranks);

/// Node group of each node, for cost models and speeds.
std::vector<int> group_of_nodes(const Cluster& cluster);

}  // namespace rehearse
