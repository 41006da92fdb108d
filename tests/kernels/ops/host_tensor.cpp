#include "tests/kernels/ops/host_tensor.h"

#include <algorithm>
#include <cstring>

#include "plan/ensure.h"

namespace rehearse {

HostTensor::HostTensor(DType dtype, TensorShape shape)
    : dtype_(dtype),
      shape_(shape),
      memory_(static_cast<std::size_t>(shape.elements()) * element_bytes(dtype)) {}

double HostTensor::at(std::int64_t index) const {
  ensure(index >= 0 && index < elements(), "an element lies inside its tensor");
  switch (dtype_) {
    case DType::F32:
      return reinterpret_cast<const float*>(memory_.data())[index];
    case DType::F64:
      return reinterpret_cast<const double*>(memory_.data())[index];
    case DType::Bf16:
      return to_float(reinterpret_cast<const Bf16*>(memory_.data())[index]);
    case DType::F8E4m3:
      return to_float(reinterpret_cast<const F8E4m3*>(memory_.data())[index]);
    case DType::I32:
      return reinterpret_cast<const std::int32_t*>(memory_.data())[index];
    case DType::U8:
      return reinterpret_cast<const std::uint8_t*>(memory_.data())[index];
  }
  return 0;
}

void HostTensor::set(std::int64_t index, double value) {
  ensure(index >= 0 && index < elements(), "an element lies inside its tensor");
  const auto narrow = static_cast<float>(value);
  switch (dtype_) {
    case DType::F32:
      reinterpret_cast<float*>(memory_.data())[index] = narrow;
      break;
    case DType::F64:
      reinterpret_cast<double*>(memory_.data())[index] = value;
      break;
    case DType::Bf16:
      reinterpret_cast<Bf16*>(memory_.data())[index] = to_bf16(narrow);
      break;
    case DType::F8E4m3:
      reinterpret_cast<F8E4m3*>(memory_.data())[index] = to_f8e4m3(narrow);
      break;
    case DType::I32:
      reinterpret_cast<std::int32_t*>(memory_.data())[index] = static_cast<std::int32_t>(value);
      break;
    case DType::U8:
      reinterpret_cast<std::uint8_t*>(memory_.data())[index] = static_cast<std::uint8_t>(value);
      break;
  }
}

void HostTensor::poison() { std::fill(memory_.begin(), memory_.end(), std::byte{0xff}); }

namespace {

double uniform(Random& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

/// Box and Muller's transform; std::normal_distribution differs between standard libraries.
double normal(Random& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(random)));
  return radius * std::cos(6.283185307179586 * uniform(random));
}

}  // namespace

HostTensor random_tensor(Random& random, DType dtype, TensorShape shape, double deviation) {
  HostTensor tensor(dtype, shape);
  for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.set(i, deviation * normal(random));
  return tensor;
}

HostTensor constant_tensor(DType dtype, TensorShape shape, double value) {
  HostTensor tensor(dtype, shape);
  for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.set(i, value);
  return tensor;
}

HostTensor int_tensor(const std::vector<std::int32_t>& values, TensorShape shape) {
  HostTensor tensor(DType::I32, shape);
  for (std::size_t i = 0; i < values.size(); ++i)
    tensor.set(static_cast<std::int64_t>(i), values[i]);
  return tensor;
}

HostTensor int_tensor(const std::vector<std::int32_t>& values) {
  return int_tensor(values, {static_cast<std::int64_t>(values.size())});
}

HostTensor random_ints(Random& random, TensorShape shape, int bound) {
  HostTensor tensor(DType::I32, shape);
  for (std::int64_t i = 0; i < tensor.elements(); ++i)
    tensor.set(i, std::floor(uniform(random) * bound));
  return tensor;
}

double relative_error(const HostTensor& a, const HostTensor& reference) {
  ensure(a.elements() == reference.elements(), "tensors that are compared are alike");
  double difference = 0, norm = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const double x = a.at(i), y = reference.at(i);
    if (x == y) {  // also infinities of one sign
      if (std::isfinite(y)) norm += y * y;
      continue;
    }
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return difference == 0 ? 0 : std::sqrt(difference / std::max(norm, 1e-30));
}

double error_bound(DType dtype) {
  switch (dtype) {
    case DType::Bf16:
      return 1e-2;
    case DType::F64:
      return 1e-12;
    case DType::F8E4m3:
      return 6e-2;  // half a step of a 3-bit mantissa, at worst everywhere
    default:
      return 1e-5;
  }
}

ComputeDevice& cpu() {
  static const std::unique_ptr<ComputeDevice> device = cpu_device(2);
  return *device;
}

double gradient_error(HostTensor& input, const HostTensor& gradient,
                      const std::function<double()>& loss, int samples) {
  ensure(input.dtype() == DType::F64, "finite differences need fp64");
  constexpr double kStep = 1e-5;
  const std::int64_t count = input.elements();
  const std::int64_t stride = std::max<std::int64_t>(1, count / samples);
  double largest = 1e-12, worst = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(gradient.at(i)));
  for (std::int64_t i = 0; i < count; i += stride) {
    const double kept = input.at(i);
    input.set(i, kept + kStep);
    const double above = loss();
    input.set(i, kept - kStep);
    const double below = loss();
    input.set(i, kept);
    const double error = std::fabs((above - below) / (2 * kStep) - gradient.at(i));
    if (!(error <= worst)) worst = error;  // NaN too
  }
  return worst / largest;
}

double inner_product(const HostTensor& a, const HostTensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) sum += a.at(i) * b.at(i);
  return sum;
}

}  // namespace rehearse
