#pragma once
#include <map>
#include <optional>

#include "kernels/cuda/cublas_gemm.h"
#include "kernels/cuda/cuda_devices.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/launch_context.h"

namespace rehearse {

/// The device as launchers see it.
class CudaContext final : public LaunchContext {
 public:
  CudaContext(cudaStream_t cuda_stream, const cudaDeviceProp& properties);
  void* workspace(std::size_t bytes) override;
  void allow_shared_memory(const void* kernel, std::size_t bytes) override;
  void check_launch(const std::source_location& where) override;

 private:
  CudaBuffer workspace_;
  std::map<const void*, std::size_t> allowed_;
};

/// Operators on one GPU: kernels of ours, and cuBLASLt for matrix products.
class CudaDevice final : public ComputeDevice {
 public:
  explicit CudaDevice(int index);
  std::string description() const override;
  void* allocate(std::size_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(void* to_device, const void* from_host, std::size_t bytes) override;
  void download(void* to_host, const void* from_device, std::size_t bytes) override;
  void fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void synchronize() override;

  cudaStream_t stream() const { return stream_->handle(); }
  CublasGemm& gemm() { return *gemm_; }

 private:
  void execute(const OperatorCall& call) override;
  /// The runtime's current GPU belongs to the thread, and others change it: every entry sets it.
  void make_current() const { check_cuda(cudaSetDevice(index_)); }

  int index_;
  cudaDeviceProp properties_{};
  std::optional<CudaStream> stream_;
  std::optional<CudaContext> context_;
  std::optional<CublasGemm> gemm_;
};

}  // namespace rehearse
