#pragma once
#include "kernels/cuda/elements.cuh"

namespace rehearse {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

/// The tensors of an attention call as kernels take them.
struct AttentionTensors {
  const void *query, *key, *value, *out, *d_out;
  void *result, *d_query, *d_key, *d_value;
  const std::int32_t *query_offsets, *key_offsets;
  float* log_sum_exp;   // (heads, query tokens); may be null forward
  float* delta;         // (heads, query tokens), backward
  float* log2_sum_exp;  // (heads, query tokens), backward on tensor cores; else null
  std::int64_t query_stride, key_stride, value_stride, out_stride, d_out_stride;
  std::int64_t d_query_stride, d_key_stride, d_value_stride, query_tokens;
  int heads, kv_heads, d;
  float scale;
  bool causal;
};

/// One sequence: where its tokens lie and which keys a query sees.
struct DeviceSpan {
  int first_query, queries, first_key, keys;
  bool causal;

  __device__ int visible(int query) const {
    if (!causal) return keys;
    const int seen = query + 1 + keys - queries;
    return seen < 0 ? 0 : seen > keys ? keys : seen;
  }
};

__device__ __forceinline__ DeviceSpan span_of(const AttentionTensors& call, int sequence) {
  const int first_query = call.query_offsets[sequence], first_key = call.key_offsets[sequence];
  return {first_query, call.query_offsets[sequence + 1] - first_query, first_key,
          call.key_offsets[sequence + 1] - first_key, call.causal};
}

/// The order in which an attention's blocks start: a GPU starts them by their index. Pairs of a
/// sequence and a key/value head come in groups whose rows, which blocks read again and again, stay
/// in the L2 cache; within a group the tile with the most work of every head comes first, then the
/// next. Blocks that share a pair's rows are neighbours, and those that end last are the shortest.
/// Heads on a slower axis than tiles would let long tiles of the last heads begin at the end.
struct BlockOrder {
  int tiles;     ///< of a head, the most of any sequence
  int pairs;     ///< sequences · key/value heads
  int in_group;  ///< pairs of a group; the last group may have fewer
  int kv_heads;
  int per_pair;  ///< blocks of a pair and tile: one, or its query heads
};

/// What a block works on: `rank` 0 is the tile with the most work.
struct BlockPlace {
  int sequence, kv_head, rank, member;
};

__device__ __forceinline__ BlockPlace place_of(const BlockOrder& order) {
  const int of_group = order.tiles * order.in_group * order.per_pair;
  const int group = static_cast<int>(blockIdx.x) / of_group;
  int rest = static_cast<int>(blockIdx.x) - group * of_group;
  const int first_pair = group * order.in_group;
  const int of_rank = min(order.in_group, order.pairs - first_pair) * order.per_pair;
  const int rank = rest / of_rank;
  rest -= rank * of_rank;
  const int pair = first_pair + rest / order.per_pair;
  return {pair / order.kv_heads, pair % order.kv_heads, rank, rest % order.per_pair};
}

/// `rows` of `row_bytes` are what the blocks of a pair read again and again.
BlockOrder block_order(const AttentionTensors& call, std::int64_t sequences, unsigned tiles,
                       int per_pair, std::int64_t rows, std::int64_t row_bytes);
inline LaunchShape blocks_in(const BlockOrder& order, unsigned threads, std::size_t shared_bytes) {
  const std::int64_t of_tile = std::int64_t{order.pairs} * order.per_pair;
  return {.grid = {blocks_for(of_tile * order.tiles, 1)},
          .block = {threads},
          .shared_bytes = shared_bytes};
}

/// Rows of one head of a (tokens, heads, d) tensor, from the sequence's first token on.
template <typename T>
__device__ __forceinline__ T* head_of(T* tensor, std::int64_t stride, int first_token, int head,
                                      int d) {
  return tensor + first_token * stride + static_cast<std::int64_t>(head) * d;
}

AttentionTensors attention_tensors(const AttentionForward& call);
AttentionTensors attention_tensors(const AttentionBackward& call);

/// Whether the tensor-core kernels take the call: bf16, head size 64, 96 or 128, a positive scale,
/// and rows that can be read in 16-byte chunks.
bool fits_tensor_cores(const AttentionForward& call);
bool fits_tensor_cores(const AttentionBackward& call);

/// The kernels for every other type, head size (up to 256) and alignment.
void attention_forward_plain(const AttentionForward& call, LaunchContext& context);
void attention_backward_plain(const AttentionBackward& call, LaunchContext& context);
/// delta(head, token) = d_out · out, which both backward kernels need, and where asked for the
/// log-sum-exp in base 2, +∞ in place of −∞: weights of rows that see nothing become 0.
void attention_delta(const AttentionTensors& call, DType dtype, LaunchContext& context);

}  // namespace rehearse
