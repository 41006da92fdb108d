#include "strategies/split_backward.h"

#include "kernels/latent_attention.h"
#include "kernels/layer_experts.h"
#include "kernels/layer_parts.h"
#include "plan/mixture.h"

namespace rehearse {

double layer_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  const double byte = at.kept_bytes;
  const auto tokens = static_cast<double>(at.tokens);
  const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  const double attention = is_latent(shape.model)
                               ? latent_kept_for_weights_elements(shape)
                               : 2 * split + tokens * static_cast<double>(at.query + at.qkv);
  const double feed_forward = shape.model.experts.count > 0
                                  ? expert_kept_for_weights_elements(shape)
                                  : 2 * split + tokens * static_cast<double>(at.ffn + at.ffn_up);
  return byte * (attention + feed_forward);
}

double mtp_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  constexpr double kStreams = 3;  // two that go in, and the gradient of the one that comes out
  return kStreams * at.element_bytes * static_cast<double>(at.split_tokens) *
         static_cast<double>(at.hidden);
}

double head_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  return at.element_bytes * (static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden) +
                             static_cast<double>(at.tokens) * static_cast<double>(at.vocab));
}

}  // namespace rehearse
