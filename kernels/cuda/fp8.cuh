#pragma once
#include "kernels/cuda/elements.cuh"

namespace rehearse {

// Between floats and the bits of fp8 (e4m3: 4 exponent bits with bias 7, 3 mantissa bits, no
// infinities, NaN 0x7f), within the few instructions that 3 bytes an element leave time for:
// 4 TB/s are 1.3e12 elements a second, 22 instructions of an H200's each.

/// The nearest fp8, ties to even; what is too large becomes the largest, 448. In plain words:
/// kernels/ops/tensor.cpp.
__device__ __forceinline__ std::uint8_t nearest_fp8(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  std::uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(pair) : "f"(0.0f), "f"(x));
  return static_cast<std::uint8_t>(pair);
#else
  const std::uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
  const std::uint32_t sign = bits >> 24 & 0x80u;
  if (magnitude > 0x7f800000u) return 0x7f;  // NaN
  // Below 2^-6 steps are 2^-9 wide, and adding 2^14 leaves no other bits; above, 20 of the 23
  // mantissa bits go, rounded to even, and the exponent's bias falls from 127 to 7.
  constexpr std::uint32_t kSmallestNormal = 121u << 23, kAdded = 141u << 23;
  const std::uint32_t small = __float_as_uint(fabsf(x) + __uint_as_float(kAdded)) - kAdded;
  const std::uint32_t normal =
      ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  const std::uint32_t code = magnitude < kSmallestNormal ? small : normal;
  return static_cast<std::uint8_t>(sign | (code < 0x7eu ? code : 0x7eu));
#endif
}

__device__ __forceinline__ float float_of_fp8(std::uint8_t code) {
  const std::uint32_t bits = code, magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return nanf("");
  // The same bits, as a float, are 2^120 too small; a float holds them all, the smallest as
  // numbers that are not normal.
  const float value = __uint_as_float(magnitude << 20) * 0x1p120f;
  return (bits & 0x80u) != 0 ? -value : value;
}

}  // namespace rehearse
