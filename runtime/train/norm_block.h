#pragma once
#include "runtime/train/rank_context.h"

namespace rehearse {

/// What a norm keeps for its gradient, beside its input.
struct NormState {
  Tensor mean, inverse_deviation;
};

/// RMSNorm or LayerNorm, with the residual added before it where one is given.
class NormBlock {
 public:
  NormBlock(const RankContext& rank, std::int32_t weight, std::int32_t bias)
      : rank_(rank), weight_(weight), bias_(bias) {}
  Tensor forward(const Tensor& x, NormState& state) const;
  /// `sum` gets x + residual.
  Tensor forward(const Tensor& x, const Tensor& residual, Tensor& sum, NormState& state) const;
  /// `x`: the norm's input, after the residual. `d_residual`, where given, is added.
  Tensor backward(const Tensor& x, const NormState& state, const Tensor& d_out,
                  const Tensor& d_residual) const;

 private:
  Tensor run(const Tensor& x, const Tensor* residual, Tensor* sum, NormState& state) const;
  bool is_layer_norm() const { return rank_.model.norm == Norm::LayerNorm; }

  const RankContext& rank_;
  std::int32_t weight_, bias_;
};

}  // namespace rehearse
