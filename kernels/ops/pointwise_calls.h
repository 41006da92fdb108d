#pragma once
#include "kernels/ops/tensor.h"
#include "plan/model.h"

namespace rehearse {

/// x ← x + residual where one is given (stored to `sum`), then
///   RMSNorm    out = x · inverse_deviation · weight,  inverse_deviation = 1/√(mean(x²) + ε)
///   LayerNorm  out = (x − mean) · inverse_deviation · weight + bias
struct NormForward {
  Norm kind = Norm::RmsNorm;
  ConstTensorView x;              ///< (rows, h)
  ConstTensorView residual = {};  ///< (rows, h); optional
  ConstTensorView weight;         ///< [h], of x's type or fp32
  ConstTensorView bias = {};      ///< [h], LayerNorm only
  TensorView sum = {};            ///< (rows, h); with a residual
  TensorView out;                 ///< (rows, h)
  TensorView mean = {};           ///< [rows] fp32, LayerNorm only
  TensorView inverse_deviation;   ///< [rows] fp32
  float epsilon = 1e-5f;
};

/// Gradients of NormForward. `d_x` = the norm's input gradient, plus `d_residual`, the gradient
/// that arrives beside the norm, where given. Parameter gradients are fp32, added where
/// `accumulate`.
struct NormBackward {
  Norm kind = Norm::RmsNorm;
  ConstTensorView d_out;      ///< (rows, h)
  ConstTensorView x;          ///< (rows, h): the norm's input, after the residual
  ConstTensorView weight;     ///< [h]
  ConstTensorView mean = {};  ///< [rows]
  ConstTensorView inverse_deviation;
  ConstTensorView d_residual = {};  ///< (rows, h); optional
  TensorView d_x;                   ///< (rows, h)
  TensorView d_weight;              ///< [h] fp32
  TensorView d_bias = {};           ///< [h] fp32, LayerNorm only
  bool accumulate = false;
};

/// Gelu: the tanh form, as in GPT-2 and in cuBLASLt's epilogue (Hendrycks and Gimpel 2016, arXiv
/// 1606.08415). Swiglu: x holds gate and value side by side, out = silu(gate) · value (Shazeer
/// 2020, arXiv 2002.05202). SquaredRelu: max(x,0)².
struct ActivationForward {
  Activation kind = Activation::Gelu;
  ConstTensorView x;  ///< (rows, f), Swiglu: (rows, 2f)
  TensorView out;     ///< (rows, f)
};
struct ActivationBackward {
  Activation kind = Activation::Gelu;
  ConstTensorView x, d_out;
  TensorView d_x;
};

/// out = a + b, elementwise.
struct Add {
  ConstTensorView a, b;
  TensorView out;
};

/// out = residual + x · mask / (1 − p). Element i keeps its value iff the i-th uniform number of
/// the stream (seed, offset) is ≥ p: Philox4x32-10 (Salmon et al., SC 2011), the same on every
/// device. The mask is kept for the backward.
struct DropoutForward {
  ConstTensorView x;
  ConstTensorView residual = {};  ///< optional
  TensorView out;
  TensorView mask;  ///< uint8, 1 where kept
  float probability = 0;
  std::uint64_t seed = 0;
  std::uint64_t offset = 0;  ///< numbers of the stream used before; a multiple of 4
};
struct DropoutBackward {
  ConstTensorView d_out, mask;
  TensorView d_x;
  float probability = 0;
};

/// out = x, converted; fp8: x · (1 / scale) on the way in, the reciprocal rounded to fp32, · scale
/// on the way out.
struct Cast {
  ConstTensorView x;
  TensorView out;
  ConstTensorView scale = {};  ///< [1] fp32; fp8 only
};

/// x ← x · factor, with the factor on the device.
struct Scale {
  TensorView x;
  ConstTensorView factor;  ///< [1] fp32
};

}  // namespace rehearse
