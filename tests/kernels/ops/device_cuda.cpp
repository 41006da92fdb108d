#include <cuda_runtime.h>

#include <algorithm>
#include <memory>
#include <new>

#include "kernels/cuda/cuda_devices.h"
#include "tests/kernels/ops/device_under_test.h"

namespace rehearse {
namespace {

/// The driver moves its pages to whoever touches them.
class ManagedMemory final : public std::pmr::memory_resource {
  void* do_allocate(std::size_t bytes, std::size_t) override {  // aligned to 256 bytes at least
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, std::max<std::size_t>(bytes, 1)) != cudaSuccess)
      throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t, std::size_t) override { (void)cudaFree(memory); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

}  // namespace

std::pmr::memory_resource* shared_memory() {
  static ManagedMemory memory;
  return &memory;
}

ComputeDevice* device_under_test() {
  static const std::unique_ptr<ComputeDevice> device =
      cuda_devices().empty() ? nullptr : cuda_device(0);
  return device.get();
}
std::string why_no_device() {
  std::string reason;
  (void)cuda_devices(&reason);
  return reason;
}
bool device_is_fast() { return true; }

}  // namespace rehearse
