#include "strategies/split_backward.h"

#include "kernels/layer_parts.h"

namespace rehearse {

double layer_kept_for_weights_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  // fp8 products take both operands in 8 bits.
  const double byte = at.fp8 ? bytes_of(Precision::Fp8) : at.element_bytes;
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
