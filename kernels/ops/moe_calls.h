#pragma once
#include "kernels/ops/tensor.h"

namespace rehearse {

/// probabilities = softmax(logits); the k largest of a row are its experts (the lower index wins
/// a tie), weighted by their probabilities, divided by their sum where `normalize`. A NaN among
/// the logits counts as the largest, and makes all probabilities and weights of its row NaN.
struct RouterForward {
  ConstTensorView logits;    ///< (tokens, experts) fp32
  TensorView probabilities;  ///< (tokens, experts) fp32
  TensorView experts;        ///< (tokens, k) int32, largest first
  TensorView weights;        ///< (tokens, k) fp32
  bool normalize = true;
};
/// d_logits from the gradient of the weights; `d_probabilities` (of a balancing loss) is added
/// where given.
struct RouterBackward {
  ConstTensorView probabilities, experts, d_weights;
  ConstTensorView d_probabilities = {};
  TensorView d_logits;  ///< (tokens, experts) fp32
  bool normalize = true;
};

/// Sorts the (token, slot) pairs by expert, stably: destination(t,s) is the pair's row among the
/// sorted ones, offsets[e] the first row of expert e.
struct MoeSort {
  ConstTensorView experts;  ///< (tokens, k) int32
  TensorView destination;   ///< (tokens, k) int32
  TensorView offsets;       ///< [experts + 1] int32
};
/// out[destination(t,s)] = x[t] · weights(t,s), weights optional: the way to the experts, and the
/// gradient of MoeCombine.
struct MoePermute {
  ConstTensorView x;             ///< (tokens, h)
  ConstTensorView destination;   ///< (tokens, k) int32
  ConstTensorView weights = {};  ///< (tokens, k) fp32
  TensorView out;                ///< (tokens·k, h)
};
/// out[t] = Σ_s x[destination(t,s)] · weights(t,s), weights optional: the way back, and the
/// gradient of MoePermute.
struct MoeCombine {
  ConstTensorView x;  ///< (tokens·k, h)
  ConstTensorView destination;
  ConstTensorView weights = {};
  TensorView out;  ///< (tokens, h)
};
/// d_weights(t,s) = d_out[t] · x[destination(t,s)]: the gradient of MoeCombine's weights.
struct MoeWeightGradient {
  ConstTensorView d_out;  ///< (tokens, h)
  ConstTensorView x;      ///< (tokens·k, h)
  ConstTensorView destination;
  TensorView d_weights;  ///< (tokens, k) fp32
};

}  // namespace rehearse
