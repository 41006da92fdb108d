// What a rank keeps and holds: the rows of Korthikanti et al. 2022 (arXiv 2205.05198), table 2,
// tensor by tensor. In units of s·b·h bytes at 16 bits, GeLU of width 4h, heads·d = h:
//   norms 2+2, qkv input 2, q and k 4/t, v 2/t, attention 5as/(ht), output's input 2/t, mask 1,
//   ffn input 2, activation's input 8/t and output 8/t, mask 1.
// Sequence parallelism divides the rest by t as well.

#include <algorithm>

#include "kernels/latent_attention.h"
#include "kernels/layer.h"
#include "kernels/layer_experts.h"
#include "kernels/layer_parts.h"
#include "plan/mixture.h"

namespace rehearse {
namespace {

constexpr double kFp32Bytes = 4;

double square_elements(const LayerShape& shape, const LayerWidths& at) {
  return static_cast<double>(at.tokens) * static_cast<double>(shape.seq_len) *
         static_cast<double>(at.heads);
}

/// What the core keeps beside q, k and v. Plain: softmax, and with dropout its mask and result.
/// Flash: its own result and the log-sum-exp of each row.
void core_tensors(const LayerShape& shape, const LayerWidths& at, std::vector<SavedTensor>& kept) {
  if (shape.attention == AttentionKernel::Flash) {
    kept.push_back({"attention log-sum-exp",
                    kFp32Bytes * static_cast<double>(at.tokens) * static_cast<double>(at.heads)});
    // In other precisions, or stored in fewer bits for both, the result is the output projection's
    // input, which is kept anyway.
    if (!is_stored(shape, shape.store.attention_result) && at.fp8_output &&
        shape.fp8.weight_gradient)
      kept.push_back({"attention result", at.element_bytes * static_cast<double>(at.tokens) *
                                              static_cast<double>(at.query)});
    return;
  }
  const double square = square_elements(shape, at);
  kept.push_back({"attention softmax", at.element_bytes * square});
  if (!at.dropout) return;
  kept.push_back({"attention dropout mask", square});
  kept.push_back({"attention dropout result", at.element_bytes * square});
}

/// What the forward keeps where the backward makes `repeated` again.
std::vector<SavedTensor> all_tensors(const LayerShape& shape, const RepeatedParts& repeated) {
  const LayerWidths at(shape);
  const double linear_bytes = at.kept_bytes;
  const double output_bytes = stored_bytes(shape, shape.store.attention_result,
                                           at.fp8_output ? at.kept_bytes : at.element_bytes);
  const double activation_bytes = stored_bytes(shape, shape.store.ffn_activation, at.element_bytes);
  const auto tokens = static_cast<double>(at.tokens);
  const auto whole = [&](std::int64_t width) { return tokens * static_cast<double>(width); };
  const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  const double byte = at.element_bytes;

  std::vector<SavedTensor> kept;
  kept.push_back({"attention norm input", byte * split});
  if (is_latent(shape.model)) {
    latent_tensors(shape, repeated, kept);
  } else {
    if (!repeated.norm) kept.push_back({"qkv input", linear_bytes * split});
    kept.push_back({"queries", byte * whole(at.query)});
    kept.push_back({"keys", byte * whole(at.key)});
    kept.push_back({"values", byte * whole(at.key)});
    if (!repeated.attention) core_tensors(shape, at, kept);
    kept.push_back({"attention_output input", output_bytes * whole(at.query)});
  }
  if (at.dropout) kept.push_back({"attention residual mask", split});
  kept.push_back({"ffn norm input", byte * split});
  if (shape.model.experts.count > 0) {
    expert_tensors(shape, repeated, kept);
  } else {
    if (!repeated.norm) kept.push_back({"ffn_up input", linear_bytes * split});
    if (!repeated.ffn)
      kept.push_back({"ffn_activation input", activation_bytes * whole(at.ffn_up)});
    if (!repeated.ffn && !repeated.ffn_activation)
      kept.push_back({"ffn_down input", linear_bytes * whole(at.ffn)});
  }
  if (at.dropout) kept.push_back({"ffn residual mask", split});
  return kept;
}

/// Layer input, the core, and the results of the first, third, … product (layer.cpp has the order);
/// the rest of `all_tensors` is made again. Results of row-parallel products are kept after their
/// sum, so in the split sequence.
std::vector<SavedTensor> operator_wise_tensors(const LayerShape& shape) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.tokens);
  const double byte = at.element_bytes;
  const bool gated = shape.model.activation == Activation::Swiglu;
  std::vector<SavedTensor> kept;
  kept.push_back({"layer input", boundary_bytes(shape)});
  kept.push_back({"queries", byte * tokens * static_cast<double>(at.query)});
  kept.push_back({"values", byte * tokens * static_cast<double>(at.key)});
  core_tensors(shape, at, kept);
  // Of fp8 outputs it is among the core's already.
  if (shape.attention == AttentionKernel::Flash && !(at.fp8_output && shape.fp8.weight_gradient))
    kept.push_back({"attention result", byte * tokens * static_cast<double>(at.query)});
  if (shape.model.experts.count > 0) {
    operator_wise_expert_tensors(shape, kept);
    return kept;
  }
  kept.push_back({"ffn_up result", byte * tokens * static_cast<double>(at.ffn)});
  if (gated) kept.push_back({"ffn_down result", boundary_bytes(shape)});
  return kept;
}

double sum(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

}  // namespace

std::vector<SavedTensor> layer_saved_tensors(const LayerShape& shape) {
  if (shape.recompute == Recompute::Full) return {{"layer input", boundary_bytes(shape)}};
  if (shape.recompute == Recompute::Operators) return operator_wise_tensors(shape);
  return all_tensors(shape, repeated_parts(shape));
}

double layer_backward_workspace_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.tokens);
  const double byte = at.element_bytes;
  const double hidden = byte * tokens * static_cast<double>(at.hidden);
  const double gathered = shape.sequence_parallel ? hidden : 0;
  const auto up = static_cast<double>(at.ffn_up), ffn = static_cast<double>(at.ffn);
  const auto query = static_cast<double>(at.query), all = static_cast<double>(at.qkv);
  // Gradients alive together: around the activation function; around the first product, with
  // its gathered input; around the attention core (flash sums dq in fp32; plain has the squares
  // of dP and dS).
  const double activation = byte * tokens * (ffn + up);
  const auto rows = static_cast<double>(at.rows);  // of a grid, which gather a block's gradients
  const double product = byte * tokens * rows * up + hidden + gathered;
  const double core =
      byte * tokens * (query + all) +
      (shape.attention == AttentionKernel::Flash ? kFp32Bytes * tokens * query
                                                 : 2 * byte * square_elements(shape, at)) +
      context_workspace_bytes(shape);
  const double feed_forward =
      shape.model.experts.count > 0 ? expert_workspace_bytes(shape) : std::max(activation, product);
  double bytes =
      std::max(feed_forward, is_latent(shape.model) ? latent_workspace_bytes(shape) : core) +
      boundary_bytes(shape);
  if (shape.recompute == Recompute::Full) {
    bytes += sum(all_tensors(shape, {})) - boundary_bytes(shape);  // its input is the checkpoint
  } else if (shape.recompute == Recompute::Operators) {
    bytes += std::max(0.0, sum(all_tensors(shape, {})) - sum(operator_wise_tensors(shape)));
  } else {
    bytes += sum(all_tensors(shape, {})) - sum(all_tensors(shape, repeated_parts(shape)));
  }
  return bytes;
}

double head_workspace_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  if (shape.own_runner || at.element_bytes == kFp32Bytes) return 0;
  return at.element_bytes * static_cast<double>(at.tokens) *
         static_cast<double>(at.rows * at.vocab);  // gathered in the columns of a grid
}

std::vector<SavedTensor> embedding_saved_tensors(const LayerShape& shape) {
  const LayerWidths at(shape);
  const double token_id_bytes = shape.own_runner ? 4 : 8;  // int64, the runner's int32
  std::vector<SavedTensor> kept{{"token ids", token_id_bytes * static_cast<double>(at.tokens)}};
  if (at.dropout)
    kept.push_back({"embedding dropout mask",
                    static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden)});
  return kept;
}

std::vector<SavedTensor> head_saved_tensors(const LayerShape& shape) {
  const LayerWidths at(shape);
  const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  const auto tokens = static_cast<double>(at.tokens);
  const double logits = tokens * static_cast<double>(at.vocab);
  std::vector<SavedTensor> kept{{"final_norm input", at.element_bytes * split},
                                {"head input", at.element_bytes * split}};
  if (!shape.own_runner) {
    kept.push_back({"cross_entropy softmax", kFp32Bytes * logits});
    return kept;
  }
  kept.push_back({"logits", at.element_bytes * logits});
  // Maximum, sum and target's logit, and the target as a 32-bit id.
  kept.push_back({"cross_entropy statistics", 4 * kFp32Bytes * tokens});
  return kept;
}

std::vector<SavedTensor> mtp_saved_tensors(const LayerShape& shape, int module) {
  const LayerWidths at(shape);
  const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  std::vector<SavedTensor> kept = embedding_saved_tensors(shape);
  // The stream before its norm is what the main model's final norm keeps.
  kept.push_back({"next tokens' embeddings", at.element_bytes * split});
  if (!repeated_parts(mtp_layer_shape(shape, module)).norm)
    kept.push_back({"mtp_projection input", 2 * at.element_bytes * split});
  return kept;
}

double boundary_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  return at.element_bytes * static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
}

}  // namespace rehearse
