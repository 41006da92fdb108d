#pragma once
#include <vector>

#include "strategies/collective_cost.h"
#include "strategies/flow_folding.h"
#include "topologies/cluster.h"

namespace rehearse {

/// What NCCL would see of the hardware under these ranks. REQUIRES: at least one rank.
CommunicatorShape communicator_shape(const Cluster& cluster, const std::vector<GpuId>& ranks);

/// True where the ranks share one NVLink (or PCIe host) domain: such collectives take the time of
/// the curve and put nothing on the network.
bool is_local(const Cluster& cluster, const std::vector<GpuId>& ranks);

/// The traffic of one collective over ranks on several nodes, as long flows, one an edge and
/// channel; factors are shares of the collective's bytes (as LayerItem counts them). The ranks of
/// a node are a chain between the NIC where a channel enters and the one where it leaves; every
/// GPU of the communicator serves one channel with its own NIC.
///   ring all-reduce            2(n−1)/n on every edge; all-gather, reduce-scatter (n−1)/n
///   double binary tree         ½ up and ½ down on every edge of both trees
///   broadcast                  1 on every edge of a ring but the last
///   all-to-all                 1/n between every two ranks
/// Sources: Patarasuk & Yuan 2009 (ring), Sanders et al. 2009 (two trees), NCCL 2.28.9.
std::vector<PhysicalFlow> collective_flows(const Cluster& cluster, const std::vector<GpuId>& ranks,
                                           CollectiveKind kind, CollectiveAlgorithm algorithm);

}  // namespace rehearse
