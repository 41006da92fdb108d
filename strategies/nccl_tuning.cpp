#include "strategies/nccl_tuning.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

#include "plan/ensure.h"

namespace rehearse {
namespace {

using Algorithm = CollectiveAlgorithm;
using Protocol = CollectiveProtocol;

// ---- Constants of NCCL 2.28.9 src/graph/tuning.cc: times in µs, bandwidths in GB/s. Rows of
// three are LL, LL128, Simple; the columns of a generation are 1 node, 2 nodes, more.

struct LatencyRow {
  double base[3];
  double nvlink[3], pci[3], net[3];
};
constexpr LatencyRow kTree{{6.8, 14, 8.4}, {.6, 1.25, 4}, {1, 1.9, 4}, {5, 8.5, 14}};
constexpr LatencyRow kRing{{6.6, 14, 8.4}, {.6, 1.9, 3.4}, {1, 2.5, 5.7}, {2.7, 4, 14}};
constexpr LatencyRow kNvls{{0, 0, 0}, {0, 0, 25}, {0, 0, 0}, {0, 0, 18}};
constexpr LatencyRow kNvlsTree{{0, 0, 0}, {0, 0, 25}, {0, 0, 0}, {0, 0, 20.9}};
constexpr LatencyRow kPat{{8, 8, 8}, {0, 0, 4}, {0, 0, 4}, {0, 0, 14}};

struct GenerationRow {
  double ll_max[3];
  double ring_ll128_per_channel[3], tree_ll128_per_channel[3];
  double tree_per_channel[3], nvls_tree_per_channel[3];
  double nvls_efficiency;
};
constexpr GenerationRow kGenerations[] = {
    // Volta
    {{39, 39, 20.4}, {20, 20, 20}, {20, 20, 20}, {26.5, 18.5, 10}, {26.5, 18.5, 10}, 0},
    // Ampere, Ada
    {{87.7, 22.5, 19}, {20, 20, 20}, {20, 20, 20}, {24, 23.6, 17.8}, {24, 23.6, 17.8}, 0},
    // Hopper
    {{141, 45, 35}, {36.7, 36.7, 36.7}, {36.7, 36.7, 29}, {38.7, 41.4, 36}, {0, 57.7, 45.5}, .85},
    // Blackwell
    {{282, 90, 70}, {73.4, 34.6, 73.4}, {55.6, 31.67, 20}, {70, 42.8, 24}, {0, 96, 43.8}, .74}};

/// Net overhead of a step, µs (Intel; AMD).
constexpr double kNetOverheadUs = 1, kNetOverheadAmdUs = 2;
/// Ring, Simple, all-reduce over nodes whose messages are not tiny: latency ·1.4 (·1.9 before
/// Ampere).
constexpr double kLongRingFactor = 1.4, kLongRingFactorOld = 1.9;
constexpr double kLongRingLeastBytes = 64;

/// Share of a tree's bandwidth reached at 64·2^i bytes; 1 beyond.
constexpr int kTreeSizes = 23;
constexpr double kTreeShare[3][kTreeSizes] = {
    {1, 1, 1, 1, .9, .8, .7, .7, .7, .7, .6, .5, .4, .4, .5, .6, .7, .8, .9, 1, 1, 1, 1},
    {1, 1, 1, 1, 1, .9, .8, .8, .8, .7, .6, .6, .6, .6, .6, .6, .8, .9, .9, .9, .9, 1, 1},
    {.9, .9, .9, .9, .9, .9, .9, .8, .7, .6, .6, .5, .5, .5, .5, .6, .7, .8, .7, .7, .8, .9, .9}};

std::size_t index(Protocol protocol) { return static_cast<std::size_t>(protocol); }

const GenerationRow& generation(int compute_capability) {
  if (compute_capability >= 100) return kGenerations[3];
  if (compute_capability >= 90) return kGenerations[2];
  return kGenerations[compute_capability >= 80 ? 1 : 0];
}

const LatencyRow& latency_row(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::Tree:
      return kTree;
    case Algorithm::Nvls:
      return kNvls;
    case Algorithm::NvlsTree:
      return kNvlsTree;
    case Algorithm::Pat:
      return kPat;
    case Algorithm::Ring:
    case Algorithm::Direct:
      break;
  }
  return kRing;
}

/// One question: NCCL's matrices have an entry for each.
struct Entry {
  CollectiveKind kind;
  const CommunicatorShape& shape;
  const NcclGraphs& graphs;
  Algorithm algorithm;
  Protocol protocol;

  double n() const { return shape.ranks(); }
  bool all_reduce() const { return kind == CollectiveKind::AllReduce; }
  std::size_t nodes_column() const {
    return static_cast<std::size_t>(std::min(shape.nodes, 3) - 1);
  }
  const NcclGraph& graph() const {
    if (algorithm == Algorithm::Ring) return graphs.ring;
    const bool nvls = algorithm == Algorithm::Nvls || algorithm == Algorithm::NvlsTree;
    return nvls ? graphs.nvls : graphs.tree;
  }
  /// Steps a block takes around the ring.
  double steps() const {
    if (kind == CollectiveKind::Broadcast) return n();
    return (all_reduce() ? 2 : 1) * (n() - 1);
  }
};

/// Which pairs exist, and which of them are switched on (src/graph/tuning.cc, init.cc).
bool enabled(const Entry& e) {
  const bool one_node = e.shape.nodes == 1;
  if (e.protocol == Protocol::LL128) {
    // NVLink or one GPU a node; PXN-closed rings only from Hopper on, but a DGX A100's rings
    // close over a shared PCIe switch, so every generation qualifies.
    const bool quick = e.graphs.intra_is_nvlink || e.shape.ranks_per_node == 1;
    if (!quick || e.shape.compute_capability < 70) return false;
  }
  if (e.algorithm == Algorithm::Ring) return true;
  if (e.kind == CollectiveKind::Broadcast) return false;
  if (e.algorithm == Algorithm::Tree) return e.all_reduce();
  if (e.protocol != Protocol::Simple) return false;
  switch (e.algorithm) {
    case Algorithm::Nvls:
      return one_node && e.graphs.nvls.channels >= 2;
    case Algorithm::NvlsTree:
      return e.all_reduce() && !one_node && e.graphs.nvls.channels >= 2;
    case Algorithm::Pat:
      return !e.all_reduce() && !one_node && e.shape.ranks_per_node == 1;
    default:
      return false;
  }
}

double nvls_channel_gbps(const Entry& e) {
  const NcclGraph& graph = e.graph();
  const GenerationRow& row = generation(e.shape.compute_capability);
  const double ppn = e.shape.ranks_per_node;
  double intra = graph.intra_gbps * row.nvls_efficiency * (graph.channels - 1) / graph.channels;
  intra *= e.all_reduce() ? 2 : (ppn - 1) / ppn;
  if (e.algorithm == Algorithm::Nvls) return std::min(intra, graph.inter_gbps);
  const double inter = graph.inter_gbps * (e.shape.nodes <= 2 ? 2 : 1);
  return std::min({intra, inter, row.nvls_tree_per_channel[e.nodes_column()]});
}

/// Bus bandwidth of rings and trees after the caps of their protocol.
double capped_gbps(const Entry& e, double bus) {
  const GenerationRow& row = generation(e.shape.compute_capability);
  const std::size_t column = e.nodes_column();
  const double channels = e.graph().channels;
  // Between nodes LL is limited by what the host's CPU lets flags through, by its vendor.
  const GenerationRow& ll_row = e.shape.nodes == 1 ? row : kGenerations[e.shape.amd_host ? 1 : 0];
  const double ll_max = ll_row.ll_max[column];
  if (e.algorithm == Algorithm::Ring) {
    if (e.protocol == Protocol::LL) return std::min(ll_max, bus * .5);
    if (e.protocol == Protocol::LL128)
      return std::min(bus * .92, channels * row.ring_ll128_per_channel[column]);
    return bus;
  }
  bus = std::min(bus * .92, channels * row.tree_per_channel[column]);
  if (e.protocol == Protocol::LL) return std::min(bus / 3.8, ll_max);
  if (e.protocol == Protocol::LL128) {
    const double payload = e.shape.nodes == 1 ? 7. / 9 : 120. / 128;
    return std::min(bus * payload, channels * row.tree_ll128_per_channel[column]);
  }
  return bus;
}

/// Algorithm bandwidth in GB/s, for sizes as LayerItem counts them.
double bandwidth_gbps(const Entry& e) {
  const NcclGraph& graph = e.graph();
  const bool nvls = e.algorithm == Algorithm::Nvls || e.algorithm == Algorithm::NvlsTree;
  const double channel = nvls                 ? nvls_channel_gbps(e)
                         : e.shape.nodes <= 2 ? graph.intra_gbps
                                              : graph.inter_gbps;
  double bus = graph.channels * channel;
  if (e.algorithm == Algorithm::Pat) return bus * .75;
  if (!nvls) bus = capped_gbps(e, bus);
  if (e.algorithm == Algorithm::Ring) return bus * e.n() / e.steps();
  if (!e.all_reduce()) return bus;
  return e.algorithm == Algorithm::Nvls ? bus * e.n() / e.steps() : bus * .5;
}

double latency_us(const Entry& e) {
  const LatencyRow& row = latency_row(e.algorithm);
  const std::size_t p = index(e.protocol);
  const bool simple = e.protocol == Protocol::Simple;
  const double nodes = e.shape.nodes, ppn = e.shape.ranks_per_node;
  double intra = e.graphs.intra_is_nvlink ? row.nvlink[p] : row.pci[p];
  const double inter = ppn == 1 ? kTree.net[p] : row.net[p];
  const double hops = std::bit_width(static_cast<unsigned>(e.shape.nodes)) - 1;  // ⌊log2 nodes⌋
  switch (e.algorithm) {
    case Algorithm::Ring: {
      if (e.kind == CollectiveKind::Broadcast)  // the same channels everywhere: one hop counts
        return row.base[p] + (nodes > 1 ? inter : intra);
      const double inter_steps = nodes > 1 ? (e.all_reduce() ? 2 : 1) * (nodes - 1) : 0;
      const double overhead =
          nodes > 1 ? (e.shape.amd_host ? kNetOverheadAmdUs : kNetOverheadUs) : 0;
      intra = std::max(intra, overhead * (simple ? 3 : 1));
      return row.base[p] + (e.steps() - inter_steps) * intra + inter_steps * inter;
    }
    case Algorithm::Tree:
      return row.base[p] + 2 * ((ppn - 1) * intra + hops * inter);
    case Algorithm::Nvls:
      return intra + (nodes > 1 ? inter : 0);
    case Algorithm::NvlsTree:
      return intra + 2 * hops * inter;
    case Algorithm::Pat:
      return row.base[p] + hops * inter / 3.5 + e.n() * 2.8;
    case Algorithm::Direct:
      break;
  }
  ensure(false, "NCCL has no tuning model for point-to-point transfers");
  return 0;
}

/// Corrections applied when a call is costed (ncclTopoGetAlgoTime).
double tree_share(Protocol protocol, double bytes) {
  if (bytes < 64) return 1;
  const int i = std::ilogb(bytes / 64);
  if (i >= kTreeSizes) return 1;
  return kTreeShare[index(protocol)][static_cast<std::size_t>(i)];
}

bool is_long_ring(const Entry& e, double bytes) {
  return e.algorithm == Algorithm::Ring && e.protocol == Protocol::Simple && e.all_reduce() &&
         e.shape.nodes > 1 && bytes / (e.graphs.channels_used * e.n()) >= kLongRingLeastBytes;
}

}  // namespace

NcclPrediction nccl_prediction(CollectiveKind kind, const CommunicatorShape& shape,
                               const NcclGraphs& graphs, Algorithm algorithm, Protocol protocol,
                               double bytes) {
  const Entry entry{kind, shape, graphs, algorithm, protocol};
  NcclPrediction prediction{algorithm, protocol, 0, 0};
  if (!enabled(entry)) return prediction;
  double bandwidth = bandwidth_gbps(entry), latency = latency_us(entry);
  if (algorithm == Algorithm::Tree && entry.all_reduce()) bandwidth *= tree_share(protocol, bytes);
  if (is_long_ring(entry, bytes))
    latency *= shape.compute_capability >= 80 ? kLongRingFactor : kLongRingFactorOld;
  prediction.latency_s = latency * 1e-6;
  prediction.bandwidth_bytes_per_s = bandwidth * 1e9;
  return prediction;
}

NcclPrediction nccl_fastest(CollectiveKind kind, const CommunicatorShape& shape,
                            const NcclGraphs& graphs, double bytes) {
  ensure(kind != CollectiveKind::AllToAll && kind != CollectiveKind::SendReceive,
         "NCCL has no tuning model for point-to-point transfers");
  constexpr Algorithm kAlgorithms[] = {Algorithm::Tree, Algorithm::Ring, Algorithm::Nvls,
                                       Algorithm::NvlsTree, Algorithm::Pat};
  constexpr Protocol kProtocols[] = {Protocol::LL, Protocol::LL128, Protocol::Simple};
  NcclPrediction best;
  for (const Algorithm algorithm : kAlgorithms)
    for (const Protocol protocol : kProtocols) {
      const NcclPrediction p = nccl_prediction(kind, shape, graphs, algorithm, protocol, bytes);
      if (p.bandwidth_bytes_per_s <= 0) continue;
      if (best.bandwidth_bytes_per_s <= 0 || p.seconds(bytes) < best.seconds(bytes)) best = p;
    }
  ensure(best.bandwidth_bytes_per_s > 0, "a ring always exists");
  return best;
}

}  // namespace rehearse
