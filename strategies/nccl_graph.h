#pragma once
#include "strategies/collective_cost.h"

namespace rehearse {

/// What NCCL's search of a machine finds for one pattern. Bandwidths are of one channel, in
/// NCCL's GB/s (1e9 bytes/s). No channels: the pattern does not exist there.
struct NcclGraph {
  int channels = 0;
  double intra_gbps = 0;  ///< inside a node
  double inter_gbps = 0;  ///< between nodes
};

struct NcclGraphs {
  NcclGraph ring, tree, nvls;
  bool intra_is_nvlink = false;  ///< else PCIe, or one GPU a node
  int channels_used = 1;         ///< of ring and tree, after NCCL has doubled them
};

/// The result of NCCL 2.28.9's search (src/graph/search.cc, topo.h, connect.cc) for nodes whose
/// GPUs hang on one crossbar: NVSwitch at the NVLink rate, or one PCIe host bridge. The search
/// itself routes channels one by one through a graph; on a crossbar its outcome is what the
/// capacities allow:
///  - a ring of speed s takes s of every GPU's links in each direction (between nodes, too: the
///    ring leaves through the NIC it came by, and the way back to that NIC closes it), and s of
///    one NIC;
///  - a tree takes s of (n−1)/n of the links;
///  - NVLS takes, for each of its h heads, s of every GPU's links and 2 s of the head's own.
/// Speeds are tried in NCCL's descending lists and the largest channels · speed wins.
NcclGraphs nccl_graphs(const CommunicatorShape& shape);

}  // namespace rehearse
