#include "kernels/cuda/cuda_errors.h"

#include <cstdio>
#include <string>

namespace rehearse {
namespace {

std::string place(const std::source_location& where) {
  return std::string(" (") + where.file_name() + ":" + std::to_string(where.line()) + ")";
}

}  // namespace

void check_cuda(cudaError_t status, const std::source_location& where) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // forgets errors that do not stick, so that they are told once
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
