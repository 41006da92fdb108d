#include "runtime/train/attention_block.h"

namespace rehearse {

AttentionBlock::AttentionBlock(const RankContext& rank, const SequenceTables& tables,
                               ShardedLinear::Places qkv)
    : rank_(rank),
      tables_(tables),
      counts_{.heads = rank.model.heads / rank.plan.tp,
              .kv_heads = rank.model.kv_heads / rank.plan.tp,
              .d = rank.model.head_dim},
      fused_(rank, qkv, Cut::Columns) {
  if (rank.plan.cp > 1) {
    if (rank.plan.context == ContextKind::Ring)
      ring_.emplace(rank, counts_);
    else
      exchange_.emplace(rank, counts_);
    return;
  }
  const std::vector<std::int64_t> lengths(static_cast<std::size_t>(rank.plan.micro_batch),
                                          rank.seq_len);
  sequences_ = {rank, lengths, lengths};
}

/// Queries and keys turn, values do not.
void AttentionBlock::rotate(const Tensor& fused, bool inverse) const {
  if (rank_.model.positions != Positions::Rotary) return;
  rank_.device.run(
      Rope{.x = slice_columns(as_heads(fused, counts_.d), 0, counts_.heads + counts_.kv_heads),
           .cosine_sine = tables_.rope,
           .positions = tables_.positions,
           .inverse = inverse});
}

void AttentionBlock::forward(const Tensor& x, AttentionState& state) const {
  const Tensor fused = fused_.forward(x);
  rotate(fused, false);
  if (exchange_) return exchange_->forward(fused, state);
  state.query_key_value = fused;
  if (ring_) return ring_->forward(state);
  state.out = rank_.empty({rank_.tokens(), counts_.query_width()});
  state.log_sum_exp = rank_.wide({counts_.heads, rank_.tokens()});
  attend_whole(rank_, sequences_, counts_, {state.query_key_value, state.out, state.log_sum_exp});
}

Tensor AttentionBlock::backward(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                                WeightWork& work) const {
  const Tensor d_fused =
      rank_.empty({rank_.tokens(), counts_.query_width() + counts_.key_value_width()});
  if (ring_)
    ring_->backward(state, d_out, d_fused);
  else if (exchange_)
    exchange_->backward(state, d_out, d_fused);
  else
    attend_whole_backward(rank_, sequences_, counts_,
                          {state.query_key_value, state.out, state.log_sum_exp}, d_out, d_fused);
  rotate(d_fused, true);
  return fused_.backward(x, d_fused, work);
}

}  // namespace rehearse
