#pragma once
#include <vector>

#include "kernels/ops/tensor.h"

namespace rehearse {

/// One step of Adam (Kingma and Ba 2015, arXiv 1412.6980), or AdamW where `decoupled` (Loshchilov
/// and Hutter 2019, arXiv 1711.05101), on fp32 master weights:
///   g = gradient · scale [+ decay · w];  m = β₁m + (1−β₁)g;  v = β₂v + (1−β₂)g²
///   w ← w − rate · (m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε) [+ decay · w])
/// and the weights are also written in the type of the computation where `parameter` is given.
struct AdamUpdate {
  TensorView master, first_moment, second_moment;  ///< [n] fp32
  ConstTensorView gradient;                        ///< [n] fp32 or bf16
  TensorView parameter = {};                       ///< [n] bf16 or fp32
  ConstTensorView gradient_scale = {};             ///< [1] fp32: the clipping factor
  float learning_rate = 1e-4f;
  float beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f, weight_decay = 0;
  bool decoupled = true;
  std::int64_t step = 1;  ///< t, from 1
};

/// out[0] = Σ x², in fp64, added where `accumulate`: a part of the gradient norm.
struct SquaredSum {
  ConstTensorView x;
  TensorView out;  ///< [1] fp64
  bool accumulate = false;
};

/// norm = √squared_sum; factor = min(1, max_norm / (norm + 1e-6)), the rule of PyTorch's
/// clip_grad_norm_. A norm that is NaN gives a factor of NaN: nothing of a broken step looks whole.
struct ClipFactor {
  ConstTensorView squared_sum;  ///< [1] fp64
  float max_norm = 1;
  TensorView norm = {};  ///< [1] fp32; optional
  TensorView factor;     ///< [1] fp32
};

/// Copies tensors into a flat bucket one behind the other, converting to its type; `unpack`
/// copies back.
struct BucketCopy {
  std::vector<TensorView> tensors;  ///< entries of the outermost dimension may lie apart
  TensorView bucket;                ///< [at least the sum of their elements]
  bool unpack = false;
};

/// out = scale · Σ inputs, added in the order given, fp32 accumulation: the local arithmetic of a
/// reduction.
struct BucketReduce {
  std::vector<ConstTensorView> inputs;  ///< alike, contiguous
  TensorView out;
  float scale = 1;
};

}  // namespace rehearse
