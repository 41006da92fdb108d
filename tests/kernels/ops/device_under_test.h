#pragma once
#include <functional>
#include <memory_resource>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"
#include "tests/kernels/ops/host_tensor.h"

namespace rehearse {

/// The device whose operators are compared with the CPU's: the GPU of this machine, or emulated
/// threads. Null where there is none; `why_no_device` then says what is missing.
ComputeDevice* device_under_test();
std::string why_no_device();
/// Memory that both the CPU and the device under test reach.
std::pmr::memory_resource* shared_memory();
/// Emulation is slow: cases with large sizes are for a real device.
bool device_is_fast();

/// A call over numbered tensors, run on the CPU and on the device with the same inputs.
/// `outputs` are compared; they are poisoned before the call, except those named in `kept`, which
/// are read as well.
struct DeviceCase {
  std::vector<HostTensor> tensors;
  std::vector<std::size_t> outputs;
  std::vector<std::size_t> kept = {};
  std::function<OperatorCall(const std::vector<TensorView>&)> call;
  bool has_nan = false;  ///< the CPU's results hold NaN, and the device's are to where they do
};

/// CHECKs that no output is off by more than its bound, and, where the device is fast, that a
/// second run gives the same bytes. Returns the case with the CPU's results in its tensors, to go
/// on with.
DeviceCase check_on_device(DeviceCase test);

}  // namespace rehearse
