#include "strategies/edge_traffic.h"

#include "plan/ensure.h"

namespace rehearse {
namespace {

double tree_node_sent(int nodes) {
  if (nodes == 1) return 0;
  if (nodes == 2) return 1;
  return nodes == 3 ? 1.5 : 2;
}

}  // namespace

EdgeTraffic edge_traffic(CollectiveKind kind, CollectiveAlgorithm algorithm,
                         const CommunicatorShape& shape) {
  const double n = shape.ranks(), per_node = shape.ranks_per_node;
  const bool leaves = shape.nodes > 1;
  EdgeTraffic traffic;
  switch (kind) {
    case CollectiveKind::AllReduce:
      if (algorithm == CollectiveAlgorithm::Ring) {
        traffic.ring_edge = 2 * (n - 1) / n;
        break;
      }
      traffic.tree_edge = .5;
      traffic.node_sent = tree_node_sent(shape.nodes);
      return traffic;
    case CollectiveKind::AllGather:
    case CollectiveKind::ReduceScatter:
      traffic.ring_edge = (n - 1) / n;
      break;
    case CollectiveKind::Broadcast:
      traffic.ring_edge = 1;
      break;
    case CollectiveKind::AllToAll:
      traffic.pair = 1 / n;
      traffic.node_sent = per_node * (n - per_node) / n;
      return traffic;
    case CollectiveKind::SendReceive:
      traffic.pair = 1;
      traffic.node_sent = leaves ? 1 : 0;
      return traffic;
  }
  traffic.node_sent = leaves ? traffic.ring_edge : 0;
  return traffic;
}

double wire_bytes_per_byte(CollectiveProtocol protocol) {
  switch (protocol) {
    case CollectiveProtocol::LL:
      return 2;
    case CollectiveProtocol::LL128:
      return 128. / 120;
    case CollectiveProtocol::Simple:
      return 1;
  }
  ensure(false, "a protocol has one of the named values");
  return 1;
}

}  // namespace rehearse
