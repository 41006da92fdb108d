#pragma once
#include <memory>

#include "runtime/channel.h"

namespace rehearse {

/// Channels over NCCL beside a GPU of this project's (kernels/cuda/cuda_devices.h), which outlives
/// them. Throws std::runtime_error where this program was built without NCCL.
std::unique_ptr<ChannelBackend> nccl_backend(ComputeDevice& device);

}  // namespace rehearse
