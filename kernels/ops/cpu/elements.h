#pragma once
#include <cstdint>
#include <utility>

#include "kernels/ops/tensor.h"
#include "plan/ensure.h"

namespace rehearse {

/// Elements of any float type are read as the type they are computed in (fp64 stays fp64, the
/// rest is float) and written back with one rounding.
inline double value(double element) { return element; }
inline float value(float element) { return element; }
inline float value(Bf16 element) { return to_float(element); }
inline float value(F8E4m3 element) { return to_float(element); }

inline void store(double& element, double result) { element = result; }
inline void store(float& element, double result) { element = static_cast<float>(result); }
inline void store(Bf16& element, double result) { element = to_bf16(static_cast<float>(result)); }
inline void store(F8E4m3& element, double result) {
  element = to_f8e4m3(static_cast<float>(result));
}

template <typename T>
const T* elements_of(const ConstTensorView& tensor) {
  return static_cast<const T*>(tensor.data);
}
template <typename T>
T* elements_of(const TensorView& tensor) {
  return static_cast<T*>(tensor.data);
}

/// Calls body with a value of the element type that belongs to `dtype`.
template <typename Body>
void with_float_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::F32:
      return std::forward<Body>(body)(float{});
    case DType::Bf16:
      return std::forward<Body>(body)(Bf16{});
    case DType::F64:
      return std::forward<Body>(body)(double{});
    case DType::F8E4m3:
      return std::forward<Body>(body)(F8E4m3{});
    default:
      ensure(false, "only floats are computed with");
  }
}

/// The same for statistics and gradients of parameters.
template <typename Body>
void with_wide_type(DType dtype, Body&& body) {
  if (dtype == DType::F64) return std::forward<Body>(body)(double{});
  ensure(dtype == DType::F32, "statistics are fp32 or fp64");
  std::forward<Body>(body)(float{});
}

}  // namespace rehearse
