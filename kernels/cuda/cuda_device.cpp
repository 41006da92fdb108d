#include "kernels/cuda/cuda_device.h"

#include <cstring>

namespace rehearse {

namespace {

std::string uuid_text(const cudaUUID_t& uuid) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : uuid.bytes) {
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

}  // namespace

std::vector<CudaDeviceFacts> cuda_devices(std::string* reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) (void)cudaGetLastError();
  if (reason != nullptr)
    *reason = status != cudaSuccess ? std::string("no GPU: ") + cudaGetErrorString(status)
              : count == 0          ? "no GPU in this machine"
                                    : "";
  std::vector<CudaDeviceFacts> devices;
  if (status != cudaSuccess) return devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, i));
    CudaDeviceFacts facts{.name = properties.name,
                          .uuid = uuid_text(properties.uuid),
                          .compute_capability_major = properties.major,
                          .compute_capability_minor = properties.minor,
                          .multiprocessors = properties.multiProcessorCount,
                          .memory_bytes = properties.totalGlobalMem,
                          .l2_bytes = static_cast<std::size_t>(properties.l2CacheSize)};
    check_cuda(cudaDriverGetVersion(&facts.driver_version));
    check_cuda(cudaRuntimeGetVersion(&facts.runtime_version));
    devices.push_back(facts);
  }
  return devices;
}

std::unique_ptr<ComputeDevice> cuda_device(int index) {
  return std::make_unique<CudaDevice>(index);
}

std::size_t free_cuda_memory_bytes(int index) {
  check_cuda(cudaSetDevice(index));
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return free;
}

CudaContext::CudaContext(cudaStream_t cuda_stream, const cudaDeviceProp& properties) {
  stream = cuda_stream;
  multiprocessors = properties.multiProcessorCount;
  // The limit holds for what a launch asks for and what a kernel declares itself together.
  constexpr std::size_t kDeclared = 1024;
  max_shared_bytes = properties.sharedMemPerBlockOptin - kDeclared;
}

void* CudaContext::workspace(std::size_t bytes) {
  if (workspaces_.empty() || bytes > workspaces_.back().bytes())
    workspaces_.emplace_back(bytes + bytes / 2);
  return workspaces_.back().data();
}

std::size_t CudaContext::workspace_bytes() const {
  std::size_t bytes = 0;
  for (const CudaBuffer& workspace : workspaces_) bytes += workspace.bytes();
  return bytes;
}

void CudaContext::allow_shared_memory(const void* kernel, std::size_t bytes) {
  constexpr std::size_t kDefault = 48 * 1024;
  if (bytes <= kDefault) return;
  std::size_t& allowed = allowed_[kernel];
  if (bytes <= allowed) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
  allowed = bytes;
}

void CudaContext::check_launch(const std::source_location& where) {
  check_cuda(cudaGetLastError(), where);
}

CudaDevice::CudaDevice(int index) : index_(index) {
  std::string reason;
  const auto devices = cuda_devices(&reason);
  if (devices.empty()) throw CudaError(reason);
  if (index < 0 || index >= static_cast<int>(devices.size()))
    throw CudaError("there is no GPU " + std::to_string(index) + ": this machine has " +
                    std::to_string(devices.size()));
  make_current();
  check_cuda(cudaGetDeviceProperties(&properties_, index));
  if (properties_.major < 8)
    throw CudaError(std::string(properties_.name) +
                    " has no bf16 tensor cores (compute capability " +
                    std::to_string(properties_.major) + "." + std::to_string(properties_.minor) +
                    "; 8.0 is needed); --device cpu works");
  stream_.emplace();
  context_.emplace(stream_->handle(), properties_);
  gemm_.emplace(properties_.major, properties_.minor);
  constexpr std::size_t kUploadsUnderWay = 8;
  staging_ = std::vector<Staging>(kUploadsUnderWay);
}

std::string CudaDevice::description() const {
  return std::string(properties_.name) + ", cuBLASLt " + gemm_->version();
}

void* CudaDevice::allocate(std::size_t bytes) {
  make_current();
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes == 0 ? 1 : bytes));
  return memory;
}

void CudaDevice::release(void* memory) noexcept { report_cuda(cudaFree(memory)); }

void CudaDevice::upload(void* to_device, const void* from_host, std::size_t bytes) {
  make_current();
  // The caller may change its memory at once.
  if (bytes <= kStagedBytes) {
    Staging& staging = staging_[next_staging_];
    next_staging_ = (next_staging_ + 1) % staging_.size();
    if (!staging.left.is_reached()) {
      about_to_wait();
      staging.left.wait();
    }
    std::memcpy(staging.memory.data(), from_host, bytes);
    check_cuda(
        cudaMemcpyAsync(to_device, staging.memory.data(), bytes, cudaMemcpyHostToDevice, stream()));
    staging.left.record(stream());
    return;
  }
  about_to_wait();
  check_cuda(cudaMemcpyAsync(to_device, from_host, bytes, cudaMemcpyHostToDevice, stream()));
  check_cuda(cudaStreamSynchronize(stream()));
}

void CudaDevice::download(void* to_host, const void* from_device, std::size_t bytes) {
  make_current();
  about_to_wait();
  check_cuda(cudaMemcpyAsync(to_host, from_device, bytes, cudaMemcpyDeviceToHost, stream()));
  check_cuda(cudaStreamSynchronize(stream()));
}

void CudaDevice::fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) {
  make_current();
  check_cuda(cudaMemsetAsync(memory, value, bytes, stream()));
}

void CudaDevice::copy(void* to, const void* from, std::size_t bytes) {
  make_current();
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()));
}

void CudaDevice::synchronize() {
  make_current();
  about_to_wait();
  check_cuda(cudaStreamSynchronize(stream()));
}

DeviceMemory CudaDevice::memory() {
  make_current();
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return {
      .scratch_bytes = static_cast<double>(context_->workspace_bytes() + gemm_->workspace_bytes()),
      .used_bytes = static_cast<double>(total - free)};
}

void CudaDevice::execute(const OperatorCall& call) {
  make_current();
  std::visit(
      [this](const auto& one) {
        if constexpr (std::is_same_v<std::decay_t<decltype(one)>, Gemm>)
          gemm_->run(one, *context_);
        else
          compute(one, *context_);
      },
      call);
}

}  // namespace rehearse
