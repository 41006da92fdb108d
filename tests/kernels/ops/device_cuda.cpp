#include <memory>

#include "kernels/cuda/cuda_devices.h"
#include "tests/kernels/ops/device_under_test.h"

namespace rehearse {

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
