#pragma once
#include <functional>
#include <map>
#include <optional>
#include <vector>

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
  std::size_t workspace_bytes() const;
  void allow_shared_memory(const void* kernel, std::size_t bytes) override;
  void check_launch(const std::source_location& where) override;

 private:
  /// The last is in use. Smaller ones before it are kept: to give memory back, CUDA waits for all
  /// that any stream is doing, and transfers among ranks may be waiting for this very device.
  std::vector<CudaBuffer> workspaces_;
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
  DeviceMemory memory() override;

  cudaStream_t stream() const { return stream_->handle(); }
  /// Called before the host waits for the GPU, by whoever knows that it could wait for ever.
  std::function<void()> before_host_waits;
  CublasGemm& gemm() { return *gemm_; }

 private:
  void execute(const OperatorCall& call) override;
  void about_to_wait() const {
    if (before_host_waits) before_host_waits();
  }
  /// The runtime's current GPU belongs to the thread, and others change it: every entry sets it.
  void make_current() const { check_cuda(cudaSetDevice(index_)); }

  /// Small uploads, such as a micro-batch's tokens, go by way of memory that the GPU reads by
  /// itself, so that the host waits for none of them. Some may be on their way at once.
  static constexpr std::size_t kStagedBytes = std::size_t{1} << 18;
  struct Staging {
    PinnedBuffer memory{kStagedBytes};
    CudaEvent left;
  };

  int index_;
  cudaDeviceProp properties_{};
  std::optional<CudaStream> stream_;
  std::optional<CudaContext> context_;
  std::optional<CublasGemm> gemm_;
  std::vector<Staging> staging_;
  std::size_t next_staging_ = 0;
};

}  // namespace rehearse
