#pragma once
#include "strategies/collective_cost.h"

namespace rehearse {

/// What a collective moves between the nodes of its communicator, as shares of its bytes (as
/// LayerItem counts them), all channels together: payload, without a protocol's flags.
///
/// n ranks on N nodes of R ranks each:
///   ring all-reduce                 ring_edge 2(n−1)/n   (Patarasuk & Yuan 2009)
///   all-gather, reduce-scatter      ring_edge (n−1)/n; PAT moves as much, over other edges
///   broadcast                       ring_edge 1, on all edges but the last
///   tree, NVLS tree                 tree_edge 1/2 up and 1/2 down each edge of both trees, which
///                                   carry half of the bytes each (Sanders et al. 2009)
///   all-to-all                      pair 1/n from every rank to every other
///   send                            pair 1
/// The edges of a ring or tree between two nodes are spread over the NICs that the ranks use, one
/// channel on each.
struct EdgeTraffic {
  double ring_edge = 0;
  double tree_edge = 0;
  double pair = 0;
  /// The most that all NICs of one node together send; they receive as much. A tree's inner node
  /// has three edges in one tree and one in the other: 2; with 2 nodes 1, with 3 nodes 3/2.
  double node_sent = 0;
};
EdgeTraffic edge_traffic(CollectiveKind kind, CollectiveAlgorithm algorithm,
                         const CommunicatorShape& shape);

/// Bytes on the wire for each byte of payload: LL sends a 4-byte flag with 4 bytes, LL128 8 bytes
/// of flags with 120 (NCCL 2.28.9 src/include/device.h).
double wire_bytes_per_byte(CollectiveProtocol protocol);

}  // namespace rehearse
