#include "tests/kernels/ops/device_under_test.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/catch.h"

namespace rehearse {
namespace {

/// Copies of a case's tensors on a device.
class Uploaded {
 public:
  Uploaded(ComputeDevice& device, const std::vector<HostTensor>& tensors) : device_(device) {
    for (const HostTensor& tensor : tensors) {
      buffers_.emplace_back(device, tensor.bytes());
      device.upload(buffers_.back().data(), tensor.data(), tensor.bytes());
      views_.emplace_back(buffers_.back().data(), tensor.dtype(), tensor.shape());
    }
  }
  const std::vector<TensorView>& views() const { return views_; }
  HostTensor download(std::size_t index) {
    HostTensor tensor(views_[index].dtype, views_[index].shape);
    device_.download(tensor.data(), buffers_[index].data(), tensor.bytes());
    return tensor;
  }

 private:
  ComputeDevice& device_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<TensorView> views_;
};

void poison_outputs(DeviceCase& test) {
  for (const std::size_t index : test.outputs)
    if (std::find(test.kept.begin(), test.kept.end(), index) == test.kept.end())
      test.tensors[index].poison();
}

std::vector<HostTensor> results_of(ComputeDevice& device, const DeviceCase& test) {
  Uploaded uploaded(device, test.tensors);
  device.run(test.call(uploaded.views()));
  device.synchronize();
  std::vector<HostTensor> results;
  for (const std::size_t index : test.outputs) results.push_back(uploaded.download(index));
  return results;
}

/// Integers and the codes of fp8 are exact; fp64 results come out of fp32 arithmetic.
double bound_of(DType dtype) {
  if (dtype == DType::I32 || dtype == DType::U8 || dtype == DType::F8E4m3) return 0;
  return dtype == DType::F64 ? 1e-6 : error_bound(dtype);
}

/// Makes zeros of what is NaN in both.
void match_nan(HostTensor& result, HostTensor& reference) {
  for (std::int64_t i = 0; i < reference.elements(); ++i)
    if (std::isnan(reference.at(i)) && std::isnan(result.at(i))) {
      result.set(i, 0);
      reference.set(i, 0);
    }
}

}  // namespace

DeviceCase check_on_device(DeviceCase test) {
  poison_outputs(test);
  const DeviceCase before = test;
  std::vector<TensorView> views;
  for (HostTensor& tensor : test.tensors) views.push_back(tensor.view());
  cpu().run(test.call(views));
  ComputeDevice* device = device_under_test();
  if (device == nullptr) {
    WARN("SKIPPED: " + why_no_device());
    return test;
  }
  const std::vector<HostTensor> results = results_of(*device, before);
  for (std::size_t i = 0; i < results.size(); ++i) {
    HostTensor result = results[i], reference = test.tensors[test.outputs[i]];
    if (test.has_nan) match_nan(result, reference);
    const double error = relative_error(result, reference);
    CAPTURE(test.outputs[i], error);
    CHECK(error <= bound_of(reference.dtype()));
  }
  if (!device_is_fast()) return test;
  const std::vector<HostTensor> again = results_of(*device, before);
  for (std::size_t i = 0; i < results.size(); ++i)
    CHECK(std::memcmp(results[i].data(), again[i].data(), again[i].bytes()) == 0);
  return test;
}

}  // namespace rehearse
