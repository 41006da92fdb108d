#pragma once
#include <cstdint>
#include <string>

#include "kernels/layer.h"

namespace rehearse {

enum class CollectiveAlgorithm : std::uint8_t { Ring, Tree, Nvls, NvlsTree, Direct };
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
  double nic_latency_s = 0;
  int ranks() const { return nodes * ranks_per_node; }
};

/// NCCL's choice for one call. time = latency_s + bytes / bandwidth on an idle network.
struct CollectiveChoice {
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::Ring;
  CollectiveProtocol protocol = CollectiveProtocol::Simple;
  int channels = 1;
  double latency_s = 0;
  double bandwidth_bytes_per_s = 0;  ///< algorithm bandwidth: `bytes` as LayerItem counts them
  double seconds(double bytes) const { return latency_s + bytes / bandwidth_bytes_per_s; }
};

/// The algorithm and protocol NCCL 2.28 would take for this call and the time its own tuning
/// model expects (formulas and constants in the .cpp with their source).
/// `bytes`: see LayerItem. REQUIRES: ranks ≥ 2, bytes > 0.
CollectiveChoice nccl_choice(CollectiveKind kind, const CommunicatorShape& shape, double bytes);

}  // namespace rehearse
