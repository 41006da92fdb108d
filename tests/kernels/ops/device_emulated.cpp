#include "kernels/cuda/emulation/emulated_device.h"
#include "tests/kernels/ops/device_under_test.h"

namespace rehearse {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
ComputeDevice* device_under_test() { return nullptr; }
std::string why_no_device() { return "fibers and this sanitizer do not go together"; }
#else
ComputeDevice* device_under_test() {
  static const std::unique_ptr<ComputeDevice> device = emulated_device();
  return device.get();
}
std::string why_no_device() { return ""; }
#endif
std::pmr::memory_resource* shared_memory() { return std::pmr::new_delete_resource(); }
bool device_is_fast() { return false; }

}  // namespace rehearse
