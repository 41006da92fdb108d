#pragma once
#include <vector>

#include "strategies/flow_folding.h"
#include "topologies/cluster.h"

namespace rehearse {

/// Seconds a byte until the last of these flows is done, on a network that carries nothing else:
/// flow i has factor_i bytes for each byte. Max-min fair sharing by progressive filling, and the
/// rates are filled anew whenever a flow ends; linear in the bytes, because all flows scale.
/// 0 for no flows. The simulated network gives the same (a test holds them together).
double fluid_seconds_per_byte(const Cluster& cluster, const std::vector<PhysicalFlow>& flows);

}  // namespace rehearse
