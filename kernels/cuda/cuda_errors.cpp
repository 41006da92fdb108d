#include "kernels/cuda/cuda_errors.h"

#include <cstdio>
#include <string>

#include "kernels/ops/device_memory.h"

namespace rehearse {
namespace {

std::string place(const std::source_location& where) {
  return std::string(" (") + where.file_name() + ":" + std::to_string(where.line()) + ")";
}

std::string no_memory_left() {
  std::size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return "the GPU has no memory left";
  const auto megabytes = [](std::size_t bytes) { return std::to_string(bytes / 1'000'000); };
  return "the GPU has too little memory left for what was asked of it: " + megabytes(free) +
         " of its " + megabytes(total) + " MB are free";
}

}  // namespace

void check_cuda(cudaError_t status, const std::source_location& where) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // forgets errors that do not stick, so that they are told once
  if (status == cudaErrorMemoryAllocation) throw DeviceMemoryError(no_memory_left());
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorUnsupportedPtxVersion)
    throw CudaError(
        "this program's kernels were not compiled for this GPU or its driver: build it on this "
        "machine (./dev gpu build); --device cpu works");
  throw CudaError(std::string("CUDA: ") + cudaGetErrorString(status) + place(where));
}

void check_cublas(cublasStatus_t status, const std::source_location& where) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw CudaError(std::string("cuBLASLt: ") + cublasLtGetStatusString(status) + place(where));
}

void report_cuda(cudaError_t status, const std::source_location& where) noexcept {
  if (status != cudaSuccess && status != cudaErrorCudartUnloading)
    std::fprintf(stderr, "CUDA: %s (%s:%u)\n", cudaGetErrorString(status), where.file_name(),
                 static_cast<unsigned>(where.line()));
}

}  // namespace rehearse
