#pragma once
#include "runtime/train/attention_block.h"
#include "runtime/train/norm_block.h"

namespace rehearse {

/// Token and position tables. Vocabulary-parallel ranks hold rows of the token table and add up.
class EmbeddingBlock {
 public:
  EmbeddingBlock(const RankContext& rank, const SequenceTables& tables, std::int32_t unit);
  Tensor forward(const Tensor& tokens) const;
  void backward(const Tensor& tokens, const Tensor& d_out) const;

 private:
  std::int64_t first_row() const;

  const RankContext& rank_;
  const SequenceTables& tables_;
  std::int32_t table_, positions_ = -1;
};

/// What the head keeps of one micro-batch.
struct HeadState {
  Tensor input, normed, logits, targets, maximum, sum, target_logit;
  NormState norm;
};

/// Final norm, head and cross entropy, whose columns vocabulary-parallel ranks share.
class HeadBlock {
 public:
  HeadBlock(const RankContext& rank, std::int32_t unit);
  void forward(const Tensor& input, const Tensor& targets, HeadState& state) const;
  /// Each token's loss is weighted by `loss_scale` (a [tokens] tensor); `losses` gets the losses
  /// of the tokens, unweighted.
  Tensor backward(HeadState& state, const Tensor& loss_scale, Tensor& losses,
                  WeightWork& work) const;

 private:
  std::int64_t first_column(const Tensor& logits) const;

  const RankContext& rank_;
  NormBlock norm_;
  ShardedLinear head_;
};

}  // namespace rehearse
