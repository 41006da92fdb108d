#include "runtime/machine_facts.h"

#if REHEARSE_HAS_CUDA
#include <cuda_runtime_api.h>

#include <array>
#endif

namespace rehearse {

#if REHEARSE_HAS_CUDA
namespace {

GpuFacts gpu_facts(int index, const cudaDeviceProp& properties) {
  GpuFacts gpu;
  gpu.index = index;
  gpu.name = properties.name;
  gpu.memory_bytes = static_cast<double>(properties.totalGlobalMem);
  gpu.streaming_multiprocessors = properties.multiProcessorCount;
  gpu.capability_major = properties.major;
  gpu.capability_minor = properties.minor;
  gpu.l2_cache_bytes = static_cast<double>(properties.l2CacheSize);
  gpu.ecc = properties.ECCEnabled != 0;
  std::array<char, 32> bus_id{};
  if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), index) == cudaSuccess)
    gpu.bus_id = bus_id.data();
  return gpu;
}

}  // namespace

CudaFacts probe_cuda() {
  CudaFacts facts;
  facts.built_in = true;
  // 0 where they do not say, as the driver's is where there is none.
  if (cudaRuntimeGetVersion(&facts.runtime_version) != cudaSuccess) facts.runtime_version = 0;
  if (cudaDriverGetVersion(&facts.driver_version) != cudaSuccess) facts.driver_version = 0;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    facts.problem = facts.driver_version == 0 ? "no NVIDIA driver is loaded on this machine"
                                              : cudaGetErrorString(error);
    return facts;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, index);
        error != cudaSuccess) {
      facts.problem = "device " + std::to_string(index) + ": " + cudaGetErrorString(error);
      continue;
    }
    facts.gpus.push_back(gpu_facts(index, properties));
  }
  if (count == 0) facts.problem = "the driver lists no device";
  return facts;
}

#else

CudaFacts probe_cuda() {
  CudaFacts facts;
  facts.problem = "this program was built without CUDA: no nvcc was found";
  return facts;
}

#endif

}  // namespace rehearse
