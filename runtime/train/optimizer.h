#pragma once
#include "runtime/train/gradient_sync.h"

namespace rehearse {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  ///< of matrices
  double clip_norm = 1;       ///< of all gradients together; 0: no clipping
};

/// AdamW over what this rank owns, with the norm of all gradients of all ranks.
class Optimizer {
 public:
  Optimizer(const RankContext& rank, RankGroups& groups, const GradientSync& sync,
            AdamOptions options);
  /// Updates the weights; `step` from 0. Returns the norm before clipping.
  double update(std::int64_t step, double rate);

 private:
  void measure_norm();

  const RankContext& rank_;
  RankGroups& groups_;
  const GradientSync& sync_;
  AdamOptions options_;
  Tensor squared_sum_;  ///< [1] fp64
  Tensor narrow_sum_;   ///< [1] fp32: what ranks exchange
  Tensor norm_, factor_;
};

}  // namespace rehearse
