#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/cost_model.h"
#include "kernels/memory_overheads.h"
#include "kernels/profile.h"
#include "kernels/profiler/measure.h"

namespace rehearse {

/// A device that can be profiled: what runs operators, what times them, and what is known of it.
struct ProfiledDevice {
  std::unique_ptr<ComputeDevice> device;
  std::unique_ptr<Stopwatch> stopwatch;
  DeviceFacts facts;        ///< rates that are not known are 0
  std::string description;  ///< of hardware and libraries
  ProfileScope scope;
  MemoryOverheads overheads;                 ///< measured on the device
  double cache_bytes = 0, memory_bytes = 0;  ///< for MeasureOptions, as is the next
  int most_sets = 64;
  double rotation_s = 2e-3;
};

/// The options that follow from the device.
MeasureOptions measure_options(const ProfiledDevice& device);

/// This machine's processor. `model` is how the kernel names it.
ProfiledDevice profiled_cpu(int threads, const std::string& model);

/// A GPU. Throws where there is none, or where this program was built without device code.
ProfiledDevice profiled_gpu(int index);

/// Seconds the host needs to issue an operator of one element.
double measured_launch_s(ProfiledDevice& device);

/// Copies within the device's own memory, from 1 MiB to four times its cache and at least 64 MiB:
/// what operators bound by memory are compared with. The largest come last.
std::vector<CopyTime> measured_copies(ProfiledDevice& device);

}  // namespace rehearse
