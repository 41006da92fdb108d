#pragma once
#include <memory>

#include "runtime/communicator.h"
#include "runtime/rendezvous.h"

namespace rehearse {

class ComputeDevice;

/// Ranks that compute on GPUs and talk through NCCL. They find each other at a rendezvous, without
/// MPI. `device` is this rank's GPU (kernels/cuda); transfers wait for what it was asked to compute
/// before. Throws std::runtime_error where this program was built without NCCL.
std::unique_ptr<World> nccl_world(int rank, int size, const Rendezvous::Place& place,
                                  double deadline_s, ComputeDevice& device);

}  // namespace rehearse
