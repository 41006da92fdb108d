#pragma once
// Inside of kernels/layer.cpp: the feed-forward part of a mixture of experts.
#include <cstdint>
#include <vector>

#include "kernels/layer.h"
#include "kernels/layer_parts.h"

namespace rehearse {

/// Sizes of one rank's part of a mixture.
struct ExpertWidths {
  explicit ExpertWidths(const LayerShape& shape);
  LayerWidths layer;
  double tokens;           ///< T: the rank's, split over the sequence
  double sent_rows;        ///< that the rank sends, and the busiest receives: load · T·k
  double rows;             ///< that its experts work on: those of all its tensor ranks
  std::int64_t experts;    ///< on this rank
  std::int64_t ffn, up;    ///< of one expert on this rank; columns of its first product
  std::int64_t shared;     ///< width of the shared experts on this rank
  std::int64_t shared_up;  ///< columns of their first product
};

/// Elements an activation function moves, and its FLOPs, a position of the block's width.
struct ActivationCost {
  double moved = 0, flops = 0;
};
ActivationCost activation_cost(Activation activation, bool forward);

/// From the norm's result to the sum that is added to the residual stream, and back.
void experts_forward(const LayerShape& shape, ItemList& items);
void experts_backward(const LayerShape& shape, ItemList& items);
/// What the backward makes again where it is not kept.
void repeat_experts(const LayerShape& shape, const RepeatedParts& repeated, ItemList& items);

/// Recomputation by operator: torchtitan keeps the results of all-to-alls, and of products those of
/// the shared experts' first and last; grouped products and the router are repeated.
void repeat_expert_operators(const LayerShape& shape, ItemList& items);
void operator_wise_expert_tensors(const LayerShape& shape, std::vector<SavedTensor>& kept);

/// Held by a rank beside its experts.
double router_and_shared_parameters(const LayerShape& shape);
/// Elements of a rank's matrices whose products an fp8 plan computes in fp8.
double expert_fp8_elements(const LayerShape& shape);
/// Kept for the backward behind the norm's input.
void expert_tensors(const LayerShape& shape, const RepeatedParts& repeated,
                    std::vector<SavedTensor>& kept);
double expert_workspace_bytes(const LayerShape& shape);
/// Inputs of products and gradients of their outputs, between the halves of a split backward.
double expert_kept_for_weights_elements(const LayerShape& shape);

}  // namespace rehearse
