#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/collective_curve.h"
#include "topologies/hardware.h"

namespace rehearse {

/// Pat: NCCL's logarithmic all-gather and reduce-scatter over nodes with one rank each.
/// Direct: point-to-point transfers.
enum class CollectiveAlgorithm : std::uint8_t { Ring, Tree, Nvls, NvlsTree, Direct, Pat };
enum class CollectiveProtocol : std::uint8_t { LL, LL128, Simple };
const char* algorithm_name(CollectiveAlgorithm algorithm);
const char* protocol_name(CollectiveProtocol protocol);

/// What NCCL sees of a communicator's hardware.
struct CommunicatorShape {
  int nodes = 1;
  int ranks_per_node = 1;  ///< of this communicator, on each node
  int compute_capability = 80;
  bool nvswitch = true;
  double nvlink_bandwidth_bytes_per_s = 0;  ///< data-sheet, one direction, per GPU
  double pcie_bandwidth_bytes_per_s = 0;
  double nic_bandwidth_bytes_per_s = 0;  ///< that one GPU of the communicator can use
  int nics_per_node = 1;                 ///< that the communicator's ranks can use together
  double nic_goodput = kNicGoodput;      ///< share of its rate that payload gets, one way
  double nic_duplex = 1;                 ///< share of its rate that each way keeps beside the other
  double nic_latency_s = 0;              ///< of the whole way from a GPU to one of another node
  bool amd_host = false;  ///< NCCL tunes some protocols by the vendor of the host's CPU
  /// Collectives measured in a node of these GPUs; nothing: the model's.
  const std::vector<CollectiveCurve>* measured = nullptr;
  int ranks() const { return nodes * ranks_per_node; }
};

/// NCCL's choice for one call and what it takes on an idle network. time = latency_s + bytes /
/// bandwidth holds for the size that was asked for: latency_s contains the ramp that a message of
/// this size loses while its chunks fill the pipeline. Between nodes the bandwidth is the slower
/// of the NICs and the NVLinks; what an algorithm puts on each edge is in edge_traffic.h.
struct CollectiveChoice {
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::Ring;
  CollectiveProtocol protocol = CollectiveProtocol::Simple;
  int channels = 1;
  double latency_s = 0;
  double bandwidth_bytes_per_s = 0;  ///< algorithm bandwidth: `bytes` as LayerItem counts them
  double seconds(double bytes) const { return latency_s + bytes / bandwidth_bytes_per_s; }
};

/// The algorithm and protocol NCCL 2.28 takes for this call, by its own tuning model
/// (nccl_tuning.h), and the time it then takes. NCCL's own times serve the choice only: they are
/// up to a third too short for messages of a few MiB. Inside one NVLink domain the time comes
/// from curves fitted to measurements (local_curve.h), over PCIe and between nodes from NCCL's
/// latencies and the NICs' payload rate; sends and all-to-alls, which NCCL does not tune, from
/// the rates of their links. A curve that was measured on the node at hand goes before all of them.
/// Takes 1 to 2 µs.
/// `bytes`: see LayerItem (all-to-all: what a rank holds before; send: the message).
/// REQUIRES: ranks ≥ 2, bytes > 0, and NICs where nodes > 1.
CollectiveChoice nccl_choice(CollectiveKind kind, const CommunicatorShape& shape, double bytes);

}  // namespace rehearse
