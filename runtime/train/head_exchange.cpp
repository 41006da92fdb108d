#include "runtime/train/head_exchange.h"

namespace rehearse {

HeadExchange::HeadExchange(const RankContext& rank, const HeadCounts& counts)
    : rank_(rank),
      counts_(counts),
      share_{.heads = counts.heads / rank.plan.cp,
             .kv_heads = counts.kv_heads / rank.plan.cp,
             .d = counts.d} {
  const std::vector<std::int64_t> lengths(static_cast<std::size_t>(rank.plan.micro_batch),
                                          rank.seq_len);
  sequences_ = {rank, lengths, lengths};
}

std::vector<TensorView> HeadExchange::by_owner_of_heads(const TensorView& tokens) const {
  std::vector<TensorView> parts;
  const std::int64_t heads = tokens.size(1) / rank_.plan.cp;
  for (int owner = 0; owner < rank_.plan.cp; ++owner)
    parts.push_back(slice_columns(tokens, owner * heads, heads));
  return parts;
}

std::vector<TensorView> HeadExchange::by_owner_of_tokens(const TensorView& heads) const {
  std::vector<TensorView> parts;
  const std::int64_t length = rank_.seq_len / rank_.plan.cp;
  for (int owner = 0; owner < rank_.plan.cp; ++owner)
    for (std::int64_t sequence = 0; sequence < rank_.plan.micro_batch; ++sequence)
      parts.push_back(slice_rows(heads, sequence * rank_.seq_len + owner * length, length));
  return parts;
}

void HeadExchange::exchange(const std::vector<TensorView>& from, const std::vector<TensorView>& to,
                            std::int64_t elements) const {
  const Tensor sent = rank_.empty({elements}), received = rank_.empty({elements});
  rank_.device.run(BucketCopy{.tensors = from, .bucket = sent});
  rank_.context.all_to_all(sent, received, Traffic::Context);
  rank_.device.run(BucketCopy{.tensors = to, .bucket = received, .unpack = true});
}

void HeadExchange::to_heads(const TensorView& tokens, const TensorView& heads) const {
  exchange(by_owner_of_heads(tokens), by_owner_of_tokens(heads), tokens.elements());
}

void HeadExchange::to_tokens(const TensorView& heads, const TensorView& tokens) const {
  exchange(by_owner_of_tokens(heads), by_owner_of_heads(tokens), tokens.elements());
}

void HeadExchange::forward(const Tensor& fused, AttentionState& state) const {
  const std::int64_t rows = rank_.tokens() * rank_.plan.cp;
  state.query_key_value = rank_.empty({rows, share_.query_width() + share_.key_value_width()});
  const QueryKeyValue own(fused, counts_), whole(state.query_key_value, share_);
  to_heads(own.query, whole.query);
  to_heads(own.key, whole.key);
  to_heads(own.value, whole.value);
  state.head_out = rank_.empty({rows, share_.query_width()});
  state.log_sum_exp = rank_.wide({share_.heads, rows});
  attend_whole(rank_, sequences_, share_,
               {state.query_key_value, state.head_out, state.log_sum_exp});
  state.out = rank_.empty({rank_.tokens(), counts_.query_width()});
  to_tokens(as_heads(state.head_out, share_.d), as_heads(state.out, counts_.d));
}

void HeadExchange::backward(const AttentionState& state, const Tensor& d_out,
                            const Tensor& d_fused) const {
  const Tensor d_heads = rank_.empty({state.head_out.size(0), share_.query_width()});
  to_heads(as_heads(d_out, counts_.d), as_heads(d_heads, share_.d));
  const Tensor d_whole =
      rank_.empty({state.query_key_value.size(0), state.query_key_value.size(1)});
  attend_whole_backward(rank_, sequences_, share_,
                        {state.query_key_value, state.head_out, state.log_sum_exp}, d_heads,
                        d_whole);
  const QueryKeyValue own(d_fused, counts_), whole(d_whole, share_);
  to_tokens(whole.query, own.query);
  to_tokens(whole.key, own.key);
  to_tokens(whole.value, own.value);
}

}  // namespace rehearse
