#pragma once
#include "kernels/ops/tensor.h"

namespace rehearse {

/// out[t] = table[tokens[t] − first_row] + position_table[positions[t]]. The table may hold a
/// slice of the vocabulary: a token outside gives zeros, so that slices add up. Learned positions
/// are optional, and given to one slice only.
struct EmbeddingForward {
  ConstTensorView tokens;  ///< [rows] int32
  ConstTensorView table;   ///< (rows of this slice, h)
  std::int64_t first_row = 0;
  ConstTensorView position_table = {};  ///< (positions, h)
  ConstTensorView positions = {};       ///< [rows] int32
  TensorView out;                       ///< (rows, h)
};

/// d_table[tokens[t] − first_row] += d_out[t], in the order of t; fp32. Also the gradient of
/// learned positions, with positions in place of tokens.
struct EmbeddingBackward {
  ConstTensorView tokens;
  ConstTensorView d_out;
  TensorView d_table;  ///< fp32
  std::int64_t first_row = 0;
};

/// Softmax cross entropy of logits whose columns may be spread over tensor ranks, in three steps
/// between which the ranks exchange one number a row:
///   1. CrossEntropyForward: this slice's row maximum, Σ exp(logit − that maximum), and the
///      target's logit if the target lies in this slice (else 0).
///   2. the ranks take the largest maximum; CrossEntropyRescale brings each sum to it; the ranks
///      add sums and target logits.
///   3. CrossEntropyBackward: loss[t] = log(sum) + maximum − target logit, and in place of the
///      logits their gradient, (softmax − onehot) · loss_scale[t].
/// A target below 0 is ignored: no loss, no gradient. Columns from `vocabulary` on (padding) are
/// left out of the softmax and get no gradient.
struct CrossEntropyForward {
  ConstTensorView logits;   ///< (rows, columns of this slice)
  ConstTensorView targets;  ///< [rows] int32, of the whole vocabulary
  std::int64_t first_column = 0;
  std::int64_t vocabulary = 0;            ///< unpadded size; columns of all slices
  TensorView maximum, sum, target_logit;  ///< [rows] fp32
};
struct CrossEntropyRescale {
  ConstTensorView local_maximum, maximum;  ///< [rows] fp32
  TensorView sum;                          ///< [rows] fp32
};
struct CrossEntropyBackward {
  TensorView logits;  ///< in: logits; out: their gradient
  ConstTensorView targets;
  std::int64_t first_column = 0;
  std::int64_t vocabulary = 0;
  ConstTensorView maximum, sum, target_logit;  ///< [rows] fp32, of the whole row
  ConstTensorView loss_scale;                  ///< [rows] fp32
  TensorView loss;                             ///< [rows] fp32
};

}  // namespace rehearse
