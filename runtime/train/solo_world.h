#pragma once
#include <memory>

#include "kernels/ops/compute_device.h"
#include "runtime/communicator.h"

namespace rehearse {

/// One rank of a run whose other ranks are not there: it computes what it would compute among them,
/// on numbers that mean nothing, and waits for nobody. Reductions leave its own part, gathers
/// repeat it, messages arrive at once with made-up contents that are neither zero nor unusual.
/// For measuring what a rank's operators take. `device` computes; it outlives the world.
std::unique_ptr<World> solo_world(int rank, int size, ComputeDevice& device);

}  // namespace rehearse
