#include "strategies/split_backward.h"

#include "kernels/layer_parts.h"

namespace rehearse {

double layer_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  const double byte = at.kept_bytes;
  const auto tokens = static_cast<double>(at.tokens);
  const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  const double inputs = 2 * split + tokens * static_cast<double>(at.query + at.ffn);
  const double gradients = 2 * split + tokens * static_cast<double>(at.qkv + at.ffn_up);
  return byte * (inputs + gradients);
}

double head_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  return at.element_bytes * (static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden) +
                             static_cast<double>(at.tokens) * static_cast<double>(at.vocab));
}

}  // namespace rehearse
