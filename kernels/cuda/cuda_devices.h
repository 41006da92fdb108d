#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// What a GPU is, as the CUDA runtime tells it.
struct CudaDeviceFacts {
  std::string name;
  std::string uuid;  ///< 32 hexadecimal digits: the same for every process that sees it
  int compute_capability_major = 0, compute_capability_minor = 0;
  int multiprocessors = 0;
  std::size_t memory_bytes = 0;
  std::size_t l2_bytes = 0;
  int driver_version = 0, runtime_version = 0;  ///< 12040 is 12.4
};

/// The GPUs of this machine; empty where there is none or no driver. `reason`, if given, gets a
/// sentence that says why it is empty.
std::vector<CudaDeviceFacts> cuda_devices(std::string* reason = nullptr);

/// A GPU with a stream of its own. Throws CudaError where there is none of that index, or where it
/// is older than the kernels' oldest target.
std::unique_ptr<ComputeDevice> cuda_device(int index);
/// Of a GPU that is in use, at this moment.
std::size_t free_cuda_memory_bytes(int index);

}  // namespace rehearse
