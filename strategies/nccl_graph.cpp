#include "strategies/nccl_graph.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Per-channel speeds the search tries, GB/s (NCCL 2.28.9 src/graph/search.cc).
constexpr double kIntraSpeeds[] = {40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3};
constexpr double kIntraSpeedsSm90[] = {60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3};
constexpr double kIntraSpeedsSm100[] = {90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18};
constexpr double kInterSpeeds[] = {48, 30, 28, 24, 20, 18,  15,  12,  10, 9,
                                   7,  6,  5,  4,  3,  2.4, 1.2, .24, .12};
constexpr double kInterSpeedsSm90[] = {48, 45, 42, 40, 30,  24,  22,  20, 17.5,
                                       15, 12, 6,  3,  2.4, 1.2, .24, .12};
constexpr double kInterSpeedsSm100[] = {96, 86,   80, 48, 45.1, 42, 40,  30,  24,  22,
                                        20, 17.5, 15, 12, 6,    3,  2.4, 1.2, .24, .12};

constexpr int kMaxRingChannels = 32;
constexpr int kMaxChannels = 64;
/// Heads of an NVLS graph (NCCL_MAX_NVLS_ARITY, src/include/device.h).
constexpr int kMaxNvlsHeads = 32;
/// The search gives up lowering the speed below this share of the best (search.cc).
constexpr double kLeastSpeedRatio = .49;
/// A graph that cannot be found runs one channel at this speed (search.cc).
constexpr double kFallbackGbps = .1;
/// PCIe as NCCL counts it: 24 GB/s for a Gen4 x16 link of 32 (topo.h, xml.cc: 16 GT/s · 16 / 80).
constexpr double kPcieShare = .75;
/// Intel's host bridge costs a GPU-to-GPU transfer 6/5 of its bytes (topo.h, INTEL_P2P_OVERHEAD).
constexpr double kIntelHostBridgeCost = 6. / 5;

/// NVLink data-sheet rate of one link and direction, and what NCCL expects of it (topo.h).
struct NvlinkGeneration {
  double sheet_gbps, nccl_gbps;
};
NvlinkGeneration nvlink_generation(int compute_capability) {
  if (compute_capability >= 100) return {50, 40.1};
  if (compute_capability >= 90) return {25, 20.6};
  if (compute_capability == 86) return {14.0625, 12};
  return {25, 20};
}

std::span<const double> speeds(const CommunicatorShape& shape) {
  if (shape.nodes > 1) {
    if (shape.compute_capability >= 100) return kInterSpeedsSm100;
    return shape.compute_capability >= 90 ? std::span<const double>(kInterSpeedsSm90)
                                          : kInterSpeeds;
  }
  if (shape.compute_capability >= 100) return kIntraSpeedsSm100;
  return shape.compute_capability >= 90 ? std::span<const double>(kIntraSpeedsSm90) : kIntraSpeeds;
}

/// What the links of one node offer, GB/s.
struct Capacities {
  double gpu = 0;  ///< of a GPU towards its peers, each direction
  double nic = 0;  ///< of one NIC with its PCIe way; 0 on one node
  double total = 0;
};

Capacities capacities(const CommunicatorShape& shape, bool nvlink) {
  constexpr double kUnlimited = std::numeric_limits<double>::infinity();
  Capacities c;
  const double pcie = shape.pcie_bandwidth_bytes_per_s > 0
                          ? shape.pcie_bandwidth_bytes_per_s / 1e9 * kPcieShare
                          : kUnlimited;
  if (nvlink) {
    const NvlinkGeneration link = nvlink_generation(shape.compute_capability);
    const double links = std::round(shape.nvlink_bandwidth_bytes_per_s / 1e9 / link.sheet_gbps);
    c.gpu = std::max(1., links) * link.nccl_gbps;
  } else {
    c.gpu = shape.amd_host ? pcie : pcie / kIntelHostBridgeCost;
  }
  c.total = nvlink ? c.gpu : pcie;
  if (shape.nodes > 1) {
    c.nic = std::min(shape.nic_bandwidth_bytes_per_s / 1e9, pcie);
    if (shape.ranks_per_node == 1) {
      c.gpu = kUnlimited;
      c.total = c.nic * shape.nics_per_node;
    }
  }
  return c;
}

int whole(double quotient) {
  return static_cast<int>(std::min(std::floor(quotient + 1e-9), 1.0 * kMaxRingChannels));
}

NcclGraph ring_graph(const CommunicatorShape& shape, const Capacities& c) {
  NcclGraph best;
  double best_gbps = 0;
  for (const double speed : speeds(shape)) {
    if (best.channels > 0 && speed / best.inter_gbps <= kLeastSpeedRatio) break;
    int channels = std::min(kMaxRingChannels, whole(c.gpu / speed));
    if (shape.nodes > 1) channels = std::min(channels, shape.nics_per_node * whole(c.nic / speed));
    if (channels < 1 || channels * speed <= best_gbps) continue;
    best = {channels, speed, speed};
    best_gbps = channels * speed;
    if (best_gbps >= c.total) break;
  }
  if (best.channels == 0) return {1, kFallbackGbps, kFallbackGbps};
  const bool enough = shape.compute_capability > 80 && best.intra_gbps < 50 && best.channels > 4;
  if (best.intra_gbps < 25 || enough) return best;
  const int doubled = std::min(2 * best.channels, kMaxRingChannels);
  const double ratio = 1. * best.channels / doubled;
  return {doubled, best.intra_gbps * ratio, best.inter_gbps * ratio};
}

/// The fastest listed speed that `fits`; the fallback where none does.
template <class Fits>
double fastest(const CommunicatorShape& shape, Fits fits) {
  for (const double speed : speeds(shape))
    if (fits(speed)) return speed;
  return kFallbackGbps;
}

/// Trees take as many channels as the rings. Between nodes NCCL then raises the speed inside a
/// node to at most twice the one outside.
NcclGraph tree_graph(const CommunicatorShape& shape, const Capacities& c, int channels) {
  const double n = shape.ranks_per_node;
  if (shape.nodes == 1) {
    const double speed = fastest(shape, [&](double s) { return channels * s <= c.gpu + 1e-9; });
    return {channels, speed, speed};
  }
  const auto inside = [&](double s) { return channels * s * (n - 1) / n <= c.gpu + 1e-9; };
  const int per_nic = (channels + shape.nics_per_node - 1) / shape.nics_per_node;
  const double inter =
      fastest(shape, [&](double s) { return inside(s) && per_nic * s <= c.nic + 1e-9; });
  const double intra = fastest(shape, [&](double s) { return s <= 2 * inter && inside(s); });
  return {channels, std::max(intra, inter), inter};
}

NcclGraph nvls_graph(const CommunicatorShape& shape, const Capacities& c) {
  if (shape.compute_capability < 90 || shape.ranks_per_node < 2) return {};
  const int heads = std::min(shape.ranks_per_node, kMaxNvlsHeads);
  const double intra = fastest(shape, [&](double s) { return (heads + 1) * s <= c.gpu + 1e-9; });
  if (shape.nodes == 1) return {heads, intra, std::numeric_limits<double>::infinity()};
  const double nic_share = shape.nics_per_node * c.nic / heads;
  const double inter =
      fastest(shape, [&](double s) { return s <= 2 * intra && s <= nic_share + 1e-9; });
  return {heads, intra, inter};
}

/// connect.cc: channels are doubled after the search, and once more where few fast rings leave
/// the node.
int channels_used(const CommunicatorShape& shape, const NcclGraph& ring) {
  int channels = std::min(kMaxChannels, 2 * ring.channels);
  if (shape.compute_capability >= 90 && shape.nodes > 1 && ring.intra_gbps > 45 && channels < 16)
    channels *= 2;
  return channels;
}

}  // namespace

NcclGraphs nccl_graphs(const CommunicatorShape& shape) {
  ensure(shape.ranks() >= 2, "a communicator has at least two ranks");
  ensure(shape.nodes == 1 || shape.nic_bandwidth_bytes_per_s > 0,
         "nodes that talk to each other have NICs");
  NcclGraphs graphs;
  graphs.intra_is_nvlink =
      shape.nvswitch && shape.ranks_per_node > 1 && shape.nvlink_bandwidth_bytes_per_s > 0;
  const Capacities c = capacities(shape, graphs.intra_is_nvlink);
  graphs.ring = ring_graph(shape, c);
  graphs.tree = tree_graph(shape, c, graphs.ring.channels);
  if (graphs.intra_is_nvlink) graphs.nvls = nvls_graph(shape, c);
  graphs.channels_used = channels_used(shape, graphs.ring);
  return graphs;
}

}  // namespace rehearse
