#include "runtime/train/norm_block.h"

namespace rehearse {

Tensor NormBlock::run(const Tensor& x, const Tensor* residual, Tensor* sum,
                      NormState& state) const {
  const std::int64_t rows = x.size(0);
  Tensor out = rank_.empty({rows, x.size(1)});
  state.inverse_deviation = rank_.wide({rows});
  NormForward call{.kind = rank_.model.norm,
                   .x = x,
                   .weight = rank_.store.weight(weight_),
                   .out = out,
                   .inverse_deviation = state.inverse_deviation};
  if (is_layer_norm()) {
    state.mean = rank_.wide({rows});
    call.bias = rank_.store.weight(bias_);
    call.mean = state.mean;
  }
  if (residual != nullptr) {
    *sum = rank_.empty({rows, x.size(1)});
    call.residual = *residual;
    call.sum = *sum;
  }
  rank_.device.run(call);
  return out;
}

Tensor NormBlock::forward(const Tensor& x, NormState& state) const {
  return run(x, nullptr, nullptr, state);
}

Tensor NormBlock::forward(const Tensor& x, const Tensor& residual, Tensor& sum,
                          NormState& state) const {
  return run(x, &residual, &sum, state);
}

Tensor NormBlock::backward(const Tensor& x, const NormState& state, const Tensor& d_out,
                           const Tensor& d_residual) const {
  Tensor d_x = rank_.empty({x.size(0), x.size(1)});
  NormBackward call{.kind = rank_.model.norm,
                    .d_out = d_out,
                    .x = x,
                    .weight = rank_.store.weight(weight_),
                    .inverse_deviation = state.inverse_deviation,
                    .d_x = d_x,
                    .d_weight = rank_.store.gradient(weight_),
                    .accumulate = true};
  if (is_layer_norm()) {
    call.mean = state.mean;
    call.d_bias = rank_.store.gradient(bias_);
  }
  if (d_residual.given()) call.d_residual = d_residual;
  rank_.device.run(call);
  return d_x;
}

}  // namespace rehearse
