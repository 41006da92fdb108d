// Layers of one model that differ: by how much of them is kept, and in what precision they are.

#include <algorithm>

#include "kernels/expert_load.h"
#include "kernels/layer_parts.h"
#include "plan/mixture.h"

namespace rehearse {

double load_of_layer(const LayerShape& shape, int layer) {
  if (shape.expert_deviation <= 0) return shape.expert_load;
  const double load = busiest_share(shape.model.experts.count, shape.ep, shape.expert_deviation,
                                    shape.routing_seed, layer);
  return shape.expert_capacity > 0 ? std::min(load, shape.expert_capacity) : load;
}

LayerShape shape_of_layer(const LayerShape& shape, int layer, int index) {
  LayerShape made = shape;
  if (shape.recompute_layers >= 0 && index >= shape.recompute_layers)
    made.recompute = Recompute::None;
  const int ends = shape.fp8.bf16_ends;
  if (shape.precision == Precision::Fp8 && (layer < ends || layer >= shape.model.layers - ends))
    made.precision = Precision::Bf16;
  if (has_experts(shape.model, layer))
    made.expert_load = load_of_layer(shape, layer);
  else
    made.model.experts = {};
  return made;
}

RepeatedParts repeated_parts(const LayerShape& shape) {
  if (shape.recompute != Recompute::Selective) return {};
  const RepeatedParts& named = shape.repeated;
  if (named.attention || named.norm || named.ffn || named.ffn_activation || named.latent_up)
    return named;
  // Flash attention recomputes its scores by itself: there is nothing to repeat unless asked.
  RepeatedParts usual;
  usual.attention = shape.attention == AttentionKernel::Plain;
  return usual;
}

}  // namespace rehearse
