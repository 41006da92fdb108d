#pragma once
#include "kernels/ops/operator_call.h"
#include "runtime/train/rank_context.h"

namespace rehearse {

/// What attention keeps for its gradient.
struct AttentionState {
  Tensor query_key_value;  ///< fused; with all-to-alls, of whole sequences and some of the heads
  Tensor key_value;        ///< ring: of the block that visited last
  Tensor out;              ///< of this rank's rows
  Tensor head_out;         ///< all-to-all: of whole sequences and some of the heads
  Tensor log_sum_exp;
};

struct HeadCounts {
  std::int64_t heads = 0, kv_heads = 0, d = 0;
  std::int64_t query_width() const { return heads * d; }
  std::int64_t key_value_width() const { return 2 * kv_heads * d; }
};

/// A (rows, width) tensor as heads.
inline TensorView as_heads(const Tensor& rows, std::int64_t d) {
  return reshaped(rows.view(), {rows.size(0), rows.size(1) / d, d});
}

/// Heads of a fused projection: those of the queries, of the keys, of the values.
struct QueryKeyValue {
  QueryKeyValue(const Tensor& fused, const HeadCounts& counts)
      : query(slice_columns(as_heads(fused, counts.d), 0, counts.heads)),
        key_value(slice_columns(as_heads(fused, counts.d), counts.heads, 2 * counts.kv_heads)),
        key(slice_columns(key_value, 0, counts.kv_heads)),
        value(slice_columns(key_value, counts.kv_heads, counts.kv_heads)) {}
  TensorView query, key_value, key, value;
};

/// Sequences as attention is told of them: offsets on the device.
struct PackedSequences {
  PackedSequences() = default;
  /// `lengths` of each, in rows.
  PackedSequences(const RankContext& rank, const std::vector<std::int64_t>& query_lengths,
                  const std::vector<std::int64_t>& key_lengths);
  AttentionShape shape(bool causal, std::int64_t d) const;

  Tensor query_offsets, key_offsets;
  std::int64_t longest_query = 0, longest_key = 0;
};

/// Causal attention over whole sequences whose queries, keys and values lie in one fused tensor,
/// and its gradient.
struct WholeAttention {
  const Tensor& fused;
  const Tensor& out;
  const Tensor& log_sum_exp;
};
void attend_whole(const RankContext& rank, const PackedSequences& sequences,
                  const HeadCounts& counts, const WholeAttention& tensors);
void attend_whole_backward(const RankContext& rank, const PackedSequences& sequences,
                           const HeadCounts& counts, const WholeAttention& forward,
                           const Tensor& d_out, const Tensor& d_fused);

}  // namespace rehearse
