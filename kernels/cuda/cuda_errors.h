#pragma once
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <source_location>
#include <stdexcept>

namespace rehearse {

/// A call of CUDA or cuBLAS that failed: what it said, and where it was made.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throw CudaError where the call did not succeed, DeviceMemoryError for want of memory.
void check_cuda(cudaError_t status,
                const std::source_location& where = std::source_location::current());
void check_cublas(cublasStatus_t status,
                  const std::source_location& where = std::source_location::current());
/// The destructors' twin: says it on stderr and goes on.
void report_cuda(cudaError_t status,
                 const std::source_location& where = std::source_location::current()) noexcept;

}  // namespace rehearse
