#include "runtime/train/attention_state.h"

#include <algorithm>
#include <cmath>

namespace rehearse {
namespace {

std::vector<std::int32_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int32_t> sums{0};
  for (const std::int64_t length : lengths)
    sums.push_back(static_cast<std::int32_t>(sums.back() + length));
  return sums;
}

}  // namespace

PackedSequences::PackedSequences(const RankContext& rank,
                                 const std::vector<std::int64_t>& query_lengths,
                                 const std::vector<std::int64_t>& key_lengths)
    : query_offsets(int_tensor(rank.pool, offsets_of(query_lengths))),
      key_offsets(int_tensor(rank.pool, offsets_of(key_lengths))),
      longest_query(*std::max_element(query_lengths.begin(), query_lengths.end())),
      longest_key(*std::max_element(key_lengths.begin(), key_lengths.end())) {}

AttentionShape PackedSequences::shape(bool causal, std::int64_t d) const {
  return {.query_offsets = query_offsets,
          .key_offsets = key_offsets,
          .max_query_length = longest_query,
          .max_key_length = longest_key,
          .causal = causal,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(d)))};
}

void attend_whole(const RankContext& rank, const PackedSequences& sequences,
                  const HeadCounts& counts, const WholeAttention& tensors) {
  const QueryKeyValue parts(tensors.fused, counts);
  rank.device.run(AttentionForward{.query = parts.query,
                                   .key = parts.key,
                                   .value = parts.value,
                                   .out = as_heads(tensors.out, counts.d),
                                   .log_sum_exp = tensors.log_sum_exp,
                                   .shape = sequences.shape(true, counts.d)});
}

void attend_whole_backward(const RankContext& rank, const PackedSequences& sequences,
                           const HeadCounts& counts, const WholeAttention& forward,
                           const Tensor& d_out, const Tensor& d_fused) {
  const QueryKeyValue parts(forward.fused, counts), slopes(d_fused, counts);
  rank.device.run(AttentionBackward{.d_out = as_heads(d_out, counts.d),
                                    .query = parts.query,
                                    .key = parts.key,
                                    .value = parts.value,
                                    .out = as_heads(forward.out, counts.d),
                                    .log_sum_exp = forward.log_sum_exp,
                                    .d_query = slopes.query,
                                    .d_key = slopes.key,
                                    .d_value = slopes.value,
                                    .shape = sequences.shape(true, counts.d)});
}

}  // namespace rehearse
