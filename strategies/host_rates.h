#pragma once
#include "topologies/hardware.h"

namespace rehearse {

/// What one GPU's share of its server's host can do, when all GPUs ask at once.
struct HostRates {
  double copy_bytes_per_s = 0;    ///< between GPU and host memory, each way; 0: no way there
  double memory_bytes_per_s = 0;  ///< sustained traffic with host memory
};
HostRates host_rates(const NodeSpec& node);

}  // namespace rehearse
