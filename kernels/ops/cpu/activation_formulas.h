#pragma once
#include <cmath>

namespace rehearse {

// GeLU in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415):
//   gelu(x) = x/2 · (1 + tanh u),  u = √(2/π) · (x + 0.044715 x³),
// and since (1 + tanh u)/2 is the logistic function of 2u, gelu(x) = x · σ(2u).
template <typename Float>
Float logistic(Float x) {
  return Float(1) / (Float(1) + std::exp(-x));
}

template <typename Float>
Float gelu_twice_u(Float x) {
  constexpr Float kTwiceSqrtTwoOverPi = Float(1.5957691216057307117597842397375);
  return kTwiceSqrtTwoOverPi * (x + Float(0.044715) * x * x * x);
}

template <typename Float>
Float gelu(Float x) {
  return x * logistic(gelu_twice_u(x));
}

/// d gelu / dx = σ(2u) + x · σ(2u)(1 − σ(2u)) · d(2u)/dx.
template <typename Float>
Float gelu_slope(Float x) {
  constexpr Float kTwiceSqrtTwoOverPi = Float(1.5957691216057307117597842397375);
  const Float s = logistic(gelu_twice_u(x));
  return s +
         x * s * (Float(1) - s) * kTwiceSqrtTwoOverPi * (Float(1) + Float(3 * 0.044715) * x * x);
}

/// silu(x) = x · σ(x), the gate of SwiGLU.
template <typename Float>
Float silu(Float x) {
  return x * logistic(x);
}
template <typename Float>
Float silu_slope(Float x) {
  const Float s = logistic(x);
  return s * (Float(1) + x * (Float(1) - s));
}

}  // namespace rehearse
