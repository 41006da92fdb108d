#pragma once
#include <string>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// FLOP/s that MFU is a share of, and where the number comes from; 0: not known.
struct DevicePeak {
  double flops_per_s = 0;
  std::string source;
};

/// Of a GPU of the catalogue the data sheet's rate of dense products of the type; of a CPU what a
/// product of `dtype` reaches right now, the best of several. Of another GPU nothing.
DevicePeak device_peak(ComputeDevice& device, DType dtype);

}  // namespace rehearse
