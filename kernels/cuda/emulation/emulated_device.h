#pragma once
#include <memory>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// A device that runs the CUDA kernels of this project with emulated threads, for machines without
/// a GPU. Matrix products, which are cuBLASLt's on a GPU, are the CPU's here. Slow, and right
/// where the kernels are.
std::unique_ptr<ComputeDevice> emulated_device();

}  // namespace rehearse
