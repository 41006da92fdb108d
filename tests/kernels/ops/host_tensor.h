#pragma once
#include <cmath>
#include <cstddef>
#include <functional>
#include <memory_resource>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// A tensor that owns its memory, read and written as doubles whatever its type.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, TensorShape shape);

  double at(std::int64_t index) const;
  void set(std::int64_t index, double value);
  std::int64_t elements() const { return shape_.elements(); }
  std::int64_t size(int dimension) const {
    return shape_.size[static_cast<std::size_t>(dimension)];
  }
  DType dtype() const { return dtype_; }
  const TensorShape& shape() const { return shape_; }
  std::size_t bytes() const { return memory_.size(); }
  const void* data() const { return memory_.data(); }
  void* data() { return memory_.data(); }
  TensorView view() { return {memory_.data(), dtype_, shape_}; }
  ConstTensorView view() const { return {memory_.data(), dtype_, shape_}; }
  operator TensorView() { return view(); }             // NOLINT: reads well in a call
  operator ConstTensorView() const { return view(); }  // NOLINT
  /// Every byte 0xff: NaN in every float type, −1 in integers. What an operator forgets to write
  /// shows.
  void poison();

 private:
  DType dtype_ = DType::F32;
  TensorShape shape_;
  std::pmr::vector<std::byte> memory_;  // of the default resource, which a test may replace
};

using Random = std::mt19937_64;

/// Normally distributed values, the same on every platform.
HostTensor random_tensor(Random& random, DType dtype, TensorShape shape, double deviation = 1);
HostTensor constant_tensor(DType dtype, TensorShape shape, double value);
HostTensor int_tensor(const std::vector<std::int32_t>& values);
HostTensor int_tensor(const std::vector<std::int32_t>& values, TensorShape shape);
/// Uniform integers of [0, bound).
HostTensor random_ints(Random& random, TensorShape shape, int bound);

/// ‖a − reference‖ / ‖reference‖; NaN where either holds one.
double relative_error(const HostTensor& a, const HostTensor& reference);
/// The bound of `relative_error` for a type: fp32 1e-5, bf16 1e-2.
double error_bound(DType dtype);

/// The CPU on two threads, shared by all tests.
ComputeDevice& cpu();

/// Largest |analytic − numeric| over `samples` elements of `input` (all, if there are fewer),
/// relative to the gradient's largest element. `loss` recomputes the loss from `input`.
double gradient_error(HostTensor& input, const HostTensor& gradient,
                      const std::function<double()>& loss, int samples = 40);
/// Σ a·b in double: the loss whose gradient with respect to a is b.
double inner_product(const HostTensor& a, const HostTensor& b);

}  // namespace rehearse
