#pragma once
#include "plan/model.h"

namespace rehearse {

// What a mixture of experts and latent attention add to a Model.

/// Whether layer `layer`, counted from 0, is a mixture of experts.
inline bool has_experts(const Model& model, int layer) {
  return model.experts.count > 0 && layer >= model.experts.leading_dense;
}
/// The model whose layers are all as its leading dense ones.
Model without_experts(const Model& model);
/// Width of one routed expert.
inline int expert_width(const Model& model) {
  return model.experts.ffn > 0 ? model.experts.ffn : model.ffn;
}
inline bool is_latent(const Model& model) { return model.latent.kv_rank > 0; }

/// Of the model's parameters what a token passes: of the routed experts only the active ones.
ParameterCount active_parameters(const Model& model);

}  // namespace rehearse
