#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "kernels/ops/operator_call.h"

namespace rehearse {

/// Memory of a device beside what was allocated of it; 0: not known.
struct DeviceMemory {
  double scratch_bytes = 0;  ///< of kernels and libraries
  double used_bytes = 0;     ///< of the whole device, by everybody
};

/// Where operators run: the CPU or one GPU. Calls run in the order given; on a GPU they may still
/// be under way when `run` returns. One thread at a time. Failures of the device throw.
class ComputeDevice {
 public:
  virtual ~ComputeDevice() = default;
  /// "cpu, 2 threads, OpenBLAS 0.3.21", "NVIDIA H200".
  virtual std::string description() const = 0;

  /// Memory on the device, aligned to 256 bytes, uninitialised.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to_device, const void* from_host, std::size_t bytes) = 0;
  virtual void download(void* to_host, const void* from_device, std::size_t bytes) = 0;
  virtual void fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) = 0;
  /// Within the device's memory, in order with the calls; the ranges do not overlap.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  /// Waits until everything asked for is done; reports what went wrong on the way.
  virtual void synchronize() = 0;
  virtual DeviceMemory memory() { return {}; }

  /// Checks the call and computes it.
  void run(const OperatorCall& call) {
    check(call);
    execute(call);
  }

 private:
  virtual void execute(const OperatorCall& call) = 0;
};

/// `threads` ≥ 1 for everything, OpenBLAS included.
std::unique_ptr<ComputeDevice> cpu_device(int threads);

/// Memory of a device, given back at the end.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(ComputeDevice& device, std::size_t bytes)
      : device_(&device), data_(device.allocate(bytes)), bytes_(bytes) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() {
    if (device_ != nullptr) device_->release(data_);
  }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  ComputeDevice* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace rehearse
