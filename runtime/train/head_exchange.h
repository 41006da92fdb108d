#pragma once
#include "runtime/train/attention_state.h"

namespace rehearse {

/// Attention of context ranks that exchange heads (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv
/// 2309.14509): all-to-alls turn each rank's tokens of all heads into all tokens of 1/cp of the
/// heads, and the result back; the gradients go the same ways. Each rank holds one piece of every
/// sequence. The exchanges and their bytes are those of kernels/context_attention.cpp.
class HeadExchange {
 public:
  /// REQUIRES: the heads of a tensor rank divide among context ranks, those of keys too.
  HeadExchange(const RankContext& rank, const HeadCounts& counts);
  /// Of `fused`, this rank's rows of all heads, makes all of `state`.
  void forward(const Tensor& fused, AttentionState& state) const;
  /// Writes all of `d_fused`, the gradient of what the forward was given.
  void backward(const AttentionState& state, const Tensor& d_out, const Tensor& d_fused) const;

 private:
  /// (rows, heads, d) of this rank's tokens to (all rows, heads / cp, d), and back.
  void to_heads(const TensorView& tokens, const TensorView& heads) const;
  void to_tokens(const TensorView& heads, const TensorView& tokens) const;
  std::vector<TensorView> by_owner_of_heads(const TensorView& tokens) const;
  std::vector<TensorView> by_owner_of_tokens(const TensorView& heads) const;
  void exchange(const std::vector<TensorView>& from, const std::vector<TensorView>& to,
                std::int64_t elements) const;

  const RankContext& rank_;
  HeadCounts counts_, share_;  ///< of all heads of the tensor rank, of this rank's part of them
  PackedSequences sequences_;
};

}  // namespace rehearse
