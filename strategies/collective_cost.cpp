#include "strategies/collective_cost.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "plan/ensure.h"
#include "strategies/edge_traffic.h"
#include "strategies/local_curve.h"
#include "strategies/nccl_graph.h"
#include "strategies/nccl_tuning.h"

namespace rehearse {
namespace {

using Algorithm = CollectiveAlgorithm;
using Protocol = CollectiveProtocol;

/// One way between two GPUs in the networks NCCL's latencies were tuned on: InfiniBand over one
/// switch. Longer ways add to every step between nodes.
constexpr double kTunedWay_s = 2.3e-6;
/// A Simple transfer: NCCL's base latency and, between nodes, its network latency
/// (src/graph/tuning.cc); 24 µs were measured for 2 KiB between two A100 nodes (vidur, send_recv).
constexpr double kSendBase_s = 8.4e-6, kSendNetwork_s = 14e-6;
/// What the proxy thread spends on each further message of an all-to-all: NCCL's network overhead
/// of a step on Intel and on AMD hosts (src/graph/tuning.cc).
constexpr double kProxyMessage_s = 1e-6, kProxyMessageAmd_s = 2e-6;
/// NVLS trees between nodes take longer than NCCL expects: with its hop of 20.9 µs doubled, and
/// 7 % on the time inside a node, 2 × 8 H200 with 8 × 400 Gbit/s come out within 10 % of the
/// published 227, 273, 339, 395, 433, 459, 486 GB/s at 32 MiB … 512 MiB, 1 and 8 GiB (bus
/// bandwidth; Dell's and Run:ai's H200 reports).
constexpr double kNvlsTreeHop_s = 2 * 20.9e-6;
constexpr double kNvlsTreeSlowdown = 1.07;

/// ⌊log2 nodes⌋, the height of a tree over nodes.
double levels(int nodes) { return std::bit_width(static_cast<unsigned>(nodes)) - 1; }

/// Steps between nodes one after the other, for ways longer than the tuned one.
double node_steps(CollectiveKind kind, Algorithm algorithm, int nodes) {
  switch (algorithm) {
    case Algorithm::Ring:
      return (kind == CollectiveKind::AllReduce ? 2 : 1) * (nodes - 1.0);
    case Algorithm::Tree:
    case Algorithm::Nvls:
    case Algorithm::NvlsTree:
      return 2 * levels(nodes);
    case Algorithm::Pat:
      return std::bit_width(static_cast<unsigned>(nodes - 1));  // ⌈log2 nodes⌉
    case Algorithm::Direct:
      break;
  }
  return nodes > 1 ? 1 : 0;
}

/// Whether NICs send and receive at once: all do but a lone transfer, and a broadcast from one
/// node to another.
bool goes_both_ways(CollectiveKind kind, int nodes) {
  if (kind == CollectiveKind::Broadcast) return nodes > 2;
  return kind != CollectiveKind::SendReceive;
}

bool is_point_to_point(CollectiveKind kind) {
  return kind == CollectiveKind::AllToAll || kind == CollectiveKind::SendReceive;
}

/// One call with everything its time depends on.
struct Call {
  CollectiveKind kind;
  const CommunicatorShape& shape;
  const NcclGraphs& graphs;
  double bytes;

  /// Payload rate of all NICs of a node together.
  double node_rate() const {
    const double duplex = goes_both_ways(kind, shape.nodes) ? shape.nic_duplex : 1;
    return shape.nics_per_node * shape.nic_bandwidth_bytes_per_s * shape.nic_goodput * duplex;
  }
  /// What the NICs of the busiest node need for a byte.
  double nic_s_per_byte(Algorithm algorithm, Protocol protocol) const {
    if (shape.nodes == 1) return 0;
    return edge_traffic(kind, algorithm, shape).node_sent * wire_bytes_per_byte(protocol) /
           node_rate();
  }
  double longer_way_s(Algorithm algorithm) const {
    if (shape.nodes == 1) return 0;
    return node_steps(kind, algorithm, shape.nodes) *
           std::max(0., shape.nic_latency_s - kTunedWay_s);
  }
  CurveTime local(Algorithm algorithm, Protocol protocol) const {
    return nvlink_time(kind, shape, algorithm, protocol, bytes);
  }
  /// Without NVLink: the rate at which a GPU reaches its peers over PCIe, as NCCL's rings do.
  double pcie_rate() const { return graphs.ring.channels * graphs.ring.intra_gbps * 1e9; }
};

CollectiveChoice choice_of(const Call& call, Algorithm algorithm, Protocol protocol,
                           double latency_s, double s_per_byte) {
  return {algorithm, protocol, call.graphs.channels_used, latency_s, 1 / s_per_byte};
}

/// Sends and all-to-alls: every rank sends to all peers at once, over NVLink or PCIe inside the
/// node and over the NICs outside; the slower of the two decides.
CollectiveChoice point_to_point(const Call& call) {
  const CommunicatorShape& shape = call.shape;
  const double n = shape.ranks(), per_node = shape.ranks_per_node;
  const bool all = call.kind == CollectiveKind::AllToAll;
  CurveTime inside;
  if (call.graphs.intra_is_nvlink && (all || shape.nodes == 1)) {
    inside = call.local(Algorithm::Direct, Protocol::Simple);
    // Of a rank's n shares, R stay on the node; the ramp goes with the root of the size.
    inside.ramp_s *= std::sqrt(per_node / n);
    inside.per_byte_s *= per_node / n;
  } else if (per_node > 1 && (all || shape.nodes == 1)) {
    inside = {kSendBase_s, 0, (all ? (per_node - 1) / n : 1) / call.pcie_rate()};
  }
  if (shape.nodes == 1)
    return choice_of(call, Algorithm::Direct, Protocol::Simple, inside.start_s + inside.ramp_s,
                     inside.per_byte_s);
  const double messages = all ? n - per_node : 1;
  const double message_s = shape.amd_host ? kProxyMessageAmd_s : kProxyMessage_s;
  const double latency_s = kSendBase_s + kSendNetwork_s + (messages - 1) * message_s +
                           call.longer_way_s(Algorithm::Direct) + inside.ramp_s;
  const double nic = call.nic_s_per_byte(Algorithm::Direct, Protocol::Simple);
  return choice_of(call, Algorithm::Direct, Protocol::Simple, latency_s,
                   std::max(nic, inside.per_byte_s));
}

/// Between nodes NCCL's latencies stand, and the slower of NICs and NVLink sets the rate.
CollectiveChoice across_nodes(const Call& call, const NcclPrediction& nccl) {
  const double nic = call.nic_s_per_byte(nccl.algorithm, nccl.protocol);
  double latency_s = nccl.latency_s + call.longer_way_s(nccl.algorithm);
  double s_per_byte = nic;
  if (nccl.algorithm == Algorithm::NvlsTree) {
    const CurveTime inside = call.local(Algorithm::Nvls, nccl.protocol);
    latency_s = inside.start_s + inside.ramp_s * kNvlsTreeSlowdown +
                2 * levels(call.shape.nodes) * kNvlsTreeHop_s + call.longer_way_s(nccl.algorithm);
    s_per_byte = std::max(nic, inside.per_byte_s * kNvlsTreeSlowdown);
  } else if (nccl.algorithm == Algorithm::Ring && nccl.protocol == Protocol::Simple) {
    const double inside =
        call.graphs.intra_is_nvlink
            ? call.local(nccl.algorithm, nccl.protocol).per_byte_s
            : (call.shape.ranks_per_node > 1 ? 1 / nccl.bandwidth_bytes_per_s : 0);
    s_per_byte = std::max(nic, inside);
  } else {
    // Protocols with flags and trees do not reach the wire's rate: NCCL's caps are measured.
    s_per_byte = std::max(nic, 1 / nccl.bandwidth_bytes_per_s);
  }
  return choice_of(call, nccl.algorithm, nccl.protocol, latency_s, s_per_byte);
}

}  // namespace

const char* algorithm_name(CollectiveAlgorithm algorithm) {
  switch (algorithm) {
    case Algorithm::Ring:
      return "ring";
    case Algorithm::Tree:
      return "tree";
    case Algorithm::Nvls:
      return "nvls";
    case Algorithm::NvlsTree:
      return "nvls_tree";
    case Algorithm::Direct:
      return "direct";
    case Algorithm::Pat:
      return "pat";
  }
  ensure(false, "an algorithm has one of the named values");
  return "";
}

const char* protocol_name(CollectiveProtocol protocol) {
  switch (protocol) {
    case Protocol::LL:
      return "ll";
    case Protocol::LL128:
      return "ll128";
    case Protocol::Simple:
      return "simple";
  }
  ensure(false, "a protocol has one of the named values");
  return "";
}

namespace {

CollectiveChoice modelled(const Call& call) {
  if (is_point_to_point(call.kind)) return point_to_point(call);
  const NcclPrediction nccl = nccl_fastest(call.kind, call.shape, call.graphs, call.bytes);
  if (call.shape.nodes > 1) return across_nodes(call, nccl);
  const bool has_curve = call.graphs.intra_is_nvlink && nccl.algorithm != Algorithm::Tree;
  if (!has_curve)
    return choice_of(call, nccl.algorithm, nccl.protocol, nccl.latency_s,
                     1 / nccl.bandwidth_bytes_per_s);
  const CurveTime time = call.local(nccl.algorithm, nccl.protocol);
  return choice_of(call, nccl.algorithm, nccl.protocol, time.start_s + time.ramp_s,
                   time.per_byte_s);
}

}  // namespace

CollectiveChoice nccl_choice(CollectiveKind kind, const CommunicatorShape& shape, double bytes) {
  ensure(bytes > 0, "a collective moves something");
  const NcclGraphs graphs = nccl_graphs(shape);
  CollectiveChoice choice = modelled({kind, shape, graphs, bytes});
  if (shape.nodes > 1 || shape.measured == nullptr) return choice;
  if (const auto time = measured_collective(*shape.measured, kind, shape.ranks(), bytes)) {
    choice.latency_s = time->start_s;
    choice.bandwidth_bytes_per_s = 1 / time->per_byte_s;
  }
  return choice;
}

}  // namespace rehearse
