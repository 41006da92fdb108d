#pragma once
// Inside of kernels/layer.cpp: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).
#include <cstdint>
#include <vector>

#include "kernels/layer.h"
#include "kernels/layer_parts.h"

namespace rehearse {

/// Sizes of one tensor rank's part.
struct LatentWidths {
  explicit LatentWidths(const LayerShape& shape);
  LayerWidths layer;
  std::int64_t query_rank;  ///< 0: queries come straight from hidden
  std::int64_t kv_rank, rope;
  std::int64_t down;      ///< columns of the first product: both latents and the common rotated key
  std::int64_t key_size;  ///< of a query or key head, its rotated part included
  std::int64_t value_size;
  std::int64_t queries, values;  ///< of this rank's heads: heads · key_size, heads · value_size
  std::int64_t up;               ///< columns that keys and values are made of: without the rotated
};

/// From the norm's result to the sum that is added to the residual stream, and back.
void latent_forward(const LayerShape& shape, ItemList& items);
void latent_backward(const LayerShape& shape, ItemList& items);
/// The attention core alone, for what is repeated in the backward.
void latent_core_forward(const LayerShape& shape, ItemList& items);

double latent_parameters(const LayerShape& shape);
/// Elements of matrices whose products an fp8 plan computes in fp8.
double latent_fp8_elements(const LayerShape& shape);
/// Kept for the backward behind the norm's input.
void latent_tensors(const LayerShape& shape, const RepeatedParts& repeated,
                    std::vector<SavedTensor>& kept);
double latent_workspace_bytes(const LayerShape& shape);
double latent_kept_for_weights_elements(const LayerShape& shape);

}  // namespace rehearse
