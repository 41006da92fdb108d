#pragma once
#include <optional>

#include "runtime/train/head_exchange.h"
#include "runtime/train/linear.h"
#include "runtime/train/ring_attention.h"
#include "runtime/train/sequence_tables.h"

namespace rehearse {

/// Queries, keys and values from the normed input, their rotation, and causal attention: of whole
/// sequences, or of context ranks in a ring or with all-to-alls.
class AttentionBlock {
 public:
  AttentionBlock(const RankContext& rank, const SequenceTables& tables, ShardedLinear::Places qkv);
  void forward(const Tensor& x, AttentionState& state) const;
  /// Returns the gradient of the input.
  Tensor backward(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                  WeightWork& work) const;

 private:
  void rotate(const Tensor& fused, bool inverse) const;

  const RankContext& rank_;
  const SequenceTables& tables_;
  HeadCounts counts_;  ///< of this tensor rank
  ShardedLinear fused_;
  PackedSequences sequences_;
  std::optional<RingAttention> ring_;
  std::optional<HeadExchange> exchange_;
};

}  // namespace rehearse
