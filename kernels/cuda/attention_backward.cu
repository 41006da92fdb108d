// Attention backward in bf16 on the tensor cores, in two kernels: one owns keys and values, one
// owns queries, and both compute the scores anew. That is 7 products where FlashAttention-2 (Dao
// 2023, arXiv 2307.08691) has 5, but every gradient has one owner that adds in one order: no
// atomics, so that the same inputs give the same bytes. The first works on transposed scores
// (keys × queries), so that their fragments feed the following products without a way through
// shared memory. FLOPs counted, as everywhere: 2.5 times the forward's.
#include "kernels/cuda/attention_arguments.cuh"
#include "kernels/cuda/tiles.cuh"

namespace rehearse {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kOwned = kWarps * 16;  // rows (keys, or queries) a block owns: 16 a warp

/// Rows of the other side a tile: as many as the registers hold beside the gradients.
constexpr int kQueryTile = 32;
constexpr int kKeyTile = 64;

template <int kColumns>
using Results = float[kColumns / 8][4];

/// result(16 × kColumns) = left rows first_row … first_row + 15 (·, kHead) · right(kColumns,
/// kHead)ᵀ.
template <int kHead, int kColumns>
__device__ __forceinline__ void multiply_rows(Results<kColumns>& result, const Bf16* left,
                                              int first_row, const Bf16* right) {
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) result[n][i] = 0;
#pragma unroll 2
  for (int step = 0; step < kHead / 16; ++step) {
    std::uint32_t a[4];
    load_left<kHead>(a, left, first_row, step);
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      std::uint32_t b[4];
      load_right<kHead>(b, right, 16 * n, step);
      mma_bf16(result[2 * n], a, b[0], b[1]);
      mma_bf16(result[2 * n + 1], a, b[2], b[3]);
    }
  }
}

/// sum(16 × kHead) += weights(16 × kRows) · tile(kRows, kHead).
template <int kHead, int kRows>
__device__ __forceinline__ void add_weighted(Results<kHead>& sum, const Results<kRows>& weights,
                                             const Bf16* tile) {
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step) {
    std::uint32_t a[4];
    pack_left(a, weights[2 * step], weights[2 * step + 1]);
#pragma unroll
    for (int n = 0; n < kHead / 16; ++n) {
      std::uint32_t b[4];
      load_right_transposed<kHead>(b, tile, 16 * step, n);
      mma_bf16(sum[2 * n], a, b[0], b[1]);
      mma_bf16(sum[2 * n + 1], a, b[2], b[3]);
    }
  }
}

template <int kHead>
__device__ __forceinline__ void store_rows(Bf16* to, std::int64_t stride, int first_row, int rows,
                                           const Results<kHead>& sum, float factor) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + lane / 4 + 8 * half;
    if (row >= rows) continue;
#pragma unroll
    for (int n = 0; n < kHead / 8; ++n)
      store_pair(to + row * stride + 8 * n + 2 * (lane % 4), sum[n][2 * half] * factor,
                 sum[n][2 * half + 1] * factor);
  }
}

template <int kHead>
__device__ __forceinline__ TileSource source_of(const void* tensor, std::int64_t stride,
                                                int first_token, int head, int rows) {
  return {head_of(static_cast<const Bf16*>(tensor), stride, first_token, head, kHead), stride,
          rows};
}

/// Starts copying the queries' log-sum-exp (in base 2) and delta of a tile, a warp each. Rows that
/// do not exist get zeros, as their elements do: they add nothing.
__device__ __forceinline__ void load_statistics(float* lse, float* delta,
                                                const AttentionTensors& call,
                                                const DeviceSpan& span, int head, int first) {
  static_assert(kQueryTile == 32, "a lane a query");
  const int warp = static_cast<int>(threadIdx.x) / 32, i = static_cast<int>(threadIdx.x) % 32;
  if (warp >= 2) return;
  const bool exists = first + i < span.queries;
  const float* from = warp == 0 ? call.log2_sum_exp : call.delta;
  const std::int64_t at = head * call.query_tokens + span.first_query + first + i;
  copy_async_4((warp == 0 ? lse : delta) + i, from + (exists ? at : 0), exists);
}

/// Tiles of queries that a block of keys works through: those of every query head of its group,
/// from the first query that sees the block's first key on.
struct QueryWalk {
  int first_tile, tiles, first_head, count;

  __device__ int head(int step) const { return first_head + step / tiles; }
  __device__ int first_query(int step) const { return (first_tile + step % tiles) * kQueryTile; }
};

__device__ __forceinline__ QueryWalk query_walk(const AttentionTensors& call,
                                                const DeviceSpan& span, int first_key,
                                                int kv_head) {
  const int group = call.heads / call.kv_heads;
  const int hidden = call.causal ? max(0, first_key - (span.keys - span.queries)) : 0;
  const int first_tile = hidden / kQueryTile;
  const int tiles = max(0, (span.queries + kQueryTile - 1) / kQueryTile - first_tile);
  return {first_tile, tiles, kv_head * group, group * tiles};
}

/// One tile of queries beside its gradients and statistics.
template <int kHead>
struct QueryStage {
  Bf16* query;
  Bf16* d_out;
  float* lse;
  float* delta;
};

template <int kHead>
__device__ __forceinline__ void load_stage(const QueryStage<kHead>& stage,
                                           const AttentionTensors& call, const DeviceSpan& span,
                                           int head, int first_query) {
  load_tile<kQueryTile, kHead, kThreads>(
      stage.query,
      source_of<kHead>(call.query, call.query_stride, span.first_query, head, span.queries),
      first_query);
  load_tile<kQueryTile, kHead, kThreads>(
      stage.d_out,
      source_of<kHead>(call.d_out, call.d_out_stride, span.first_query, head, span.queries),
      first_query);
  load_statistics(stage.lse, stage.delta, call, span, head, first_query);
}

/// Weights and slopes of 16 keys and a tile of queries, added to the keys' gradients.
template <int kHead>
__device__ __forceinline__ void add_stage(Results<kHead>& d_key, Results<kHead>& d_value,
                                          const QueryStage<kHead>& stage, const Bf16* key,
                                          const Bf16* value, const AttentionTensors& call,
                                          const DeviceSpan& span, int first_key, int first_query) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  Results<kQueryTile> weights, slopes;
  multiply_rows<kHead, kQueryTile>(weights, key, warp_row, stage.query);
  multiply_rows<kHead, kQueryTile>(slopes, value, warp_row, stage.d_out);
  const float scale_log2 = call.scale * kLog2e;
  const auto weigh = [&](auto is_masked) {
#pragma unroll
    for (int n = 0; n < kQueryTile / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + 2 * (lane % 4) + i % 2;
        float weight = exp2_fast(weights[n][i] * scale_log2 - stage.lse[column]);
        if constexpr (decltype(is_masked)::value) {
          const int row = first_key + warp_row + lane / 4 + 8 * (i / 2);
          if (row >= span.visible(first_query + column)) weight = 0;
        }
        slopes[n][i] = weight * (slopes[n][i] - stage.delta[column]);
        weights[n][i] = weight;
      }
  };
  // The first query sees the fewest keys; tiles below the diagonal see all of the warp's.
  if (first_key + warp_row + 16 > span.visible(first_query))
    weigh(std::true_type{});
  else
    weigh(std::false_type{});
  add_weighted<kHead, kQueryTile>(d_value, weights, stage.d_out);
  add_weighted<kHead, kQueryTile>(d_key, slopes, stage.query);
}

template <int kHead>
__global__ void __launch_bounds__(kThreads, 1)
    d_key_value_kernel(AttentionTensors call, BlockOrder order) {
  const BlockPlace place = place_of(order);
  const DeviceSpan span = span_of(call, place.sequence);
  const int first_key = place.rank * kOwned;  // the first keys are seen by the most queries
  if (first_key >= span.keys) return;
  const int kv_head = place.kv_head;
  __shared__ float lse[2][kQueryTile], delta[2][kQueryTile];
  Bf16* key = static_cast<Bf16*>(dynamic_shared_memory());
  Bf16* value = key + kOwned * kHead;
  Bf16* stages = value + kOwned * kHead;
  const auto stage_of = [&](int step) -> QueryStage<kHead> {
    Bf16* query = stages + step % 2 * 2 * kQueryTile * kHead;
    return {query, query + kQueryTile * kHead, lse[step % 2], delta[step % 2]};
  };
  load_tile<kOwned, kHead, kThreads>(
      key, source_of<kHead>(call.key, call.key_stride, span.first_key, kv_head, span.keys),
      first_key);
  load_tile<kOwned, kHead, kThreads>(
      value, source_of<kHead>(call.value, call.value_stride, span.first_key, kv_head, span.keys),
      first_key);
  Results<kHead> d_key = {}, d_value = {};
  const QueryWalk walk = query_walk(call, span, first_key, kv_head);
  if (walk.count > 0) load_stage<kHead>(stage_of(0), call, span, walk.head(0), walk.first_query(0));
  copy_async_commit();
  for (int step = 0; step < walk.count; ++step) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before any more
    if (step + 1 < walk.count)
      load_stage<kHead>(stage_of(step + 1), call, span, walk.head(step + 1),
                        walk.first_query(step + 1));
    copy_async_commit();
    add_stage<kHead>(d_key, d_value, stage_of(step), key, value, call, span, first_key,
                     walk.first_query(step));
  }
  copy_async_wait<0>();
  const int first_row = first_key + static_cast<int>(threadIdx.x) / 32 * 16;
  store_rows<kHead>(
      head_of(static_cast<Bf16*>(call.d_key), call.d_key_stride, span.first_key, kv_head, kHead),
      call.d_key_stride, first_row, span.keys, d_key, call.scale);
  store_rows<kHead>(head_of(static_cast<Bf16*>(call.d_value), call.d_value_stride, span.first_key,
                            kv_head, kHead),
                    call.d_value_stride, first_row, span.keys, d_value, 1.0f);
}

/// What a lane knows of its two rows of queries.
struct QueryRows {
  float lse[2], delta[2];
  int visible[2];
};

__device__ __forceinline__ QueryRows query_rows(const AttentionTensors& call,
                                                const DeviceSpan& span, int head, int first_row) {
  QueryRows rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * half;
    const std::int64_t at = head * call.query_tokens + span.first_query + row;
    const bool exists = row < span.queries;
    rows.visible[half] = exists ? span.visible(row) : 0;
    rows.lse[half] = exists ? call.log2_sum_exp[at] : 0.0f;
    rows.delta[half] = exists ? call.delta[at] : 0.0f;
  }
  return rows;
}

/// Scores and products of d_out with values become slopes of the scores. Rows that do not exist
/// have neither: their slopes are zeros, mask or not.
__device__ __forceinline__ void slopes_of(Results<kKeyTile>& slopes,
                                          const Results<kKeyTile>& scores, const QueryRows& rows,
                                          int first_key, int seen_by_all, float scale_log2) {
  const auto weigh = [&](auto is_masked) {
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float weight = exp2_fast(scores[n][i] * scale_log2 - rows.lse[i / 2]);
        if constexpr (decltype(is_masked)::value) {
          const int lane = static_cast<int>(threadIdx.x) % 32;
          const int column = first_key + 8 * n + 2 * (lane % 4) + i % 2;
          if (column >= rows.visible[i / 2]) weight = 0;
        }
        slopes[n][i] = weight * (slopes[n][i] - rows.delta[i / 2]);
      }
  };
  if (first_key + kKeyTile > seen_by_all)
    weigh(std::true_type{});
  else
    weigh(std::false_type{});
}

template <int kHead>
__global__ void __launch_bounds__(kThreads, 1)
    d_query_kernel(AttentionTensors call, BlockOrder order) {
  const BlockPlace place = place_of(order);
  const DeviceSpan span = span_of(call, place.sequence);
  const int first_query = (order.tiles - 1 - place.rank) * kOwned;  // the last see the most keys
  if (first_query >= span.queries) return;
  const int kv_head = place.kv_head, head = kv_head * order.per_pair + place.member;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  Bf16* query = static_cast<Bf16*>(dynamic_shared_memory());
  Bf16* d_out = query + kOwned * kHead;
  Bf16* stages = d_out + kOwned * kHead;
  const auto load_keys = [&](int step) {
    Bf16* key = stages + step % 2 * 2 * kKeyTile * kHead;
    load_tile<kKeyTile, kHead, kThreads>(
        key, source_of<kHead>(call.key, call.key_stride, span.first_key, kv_head, span.keys),
        step * kKeyTile);
    load_tile<kKeyTile, kHead, kThreads>(
        key + kKeyTile * kHead,
        source_of<kHead>(call.value, call.value_stride, span.first_key, kv_head, span.keys),
        step * kKeyTile);
  };
  load_tile<kOwned, kHead, kThreads>(
      query, source_of<kHead>(call.query, call.query_stride, span.first_query, head, span.queries),
      first_query);
  load_tile<kOwned, kHead, kThreads>(
      d_out, source_of<kHead>(call.d_out, call.d_out_stride, span.first_query, head, span.queries),
      first_query);
  const QueryRows rows = query_rows(call, span, head, first_query + warp_row);
  const int seen_by_all = span.visible(first_query + warp_row);  // the first row sees the fewest
  Results<kHead> d_query = {};
  const int last_query = min(first_query + kOwned, span.queries) - 1;
  const int tiles = (span.visible(last_query) + kKeyTile - 1) / kKeyTile;
  if (tiles > 0) load_keys(0);
  copy_async_commit();
  for (int step = 0; step < tiles; ++step) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before any more
    if (step + 1 < tiles) load_keys(step + 1);
    copy_async_commit();
    const Bf16* key = stages + step % 2 * 2 * kKeyTile * kHead;
    Results<kKeyTile> weights, slopes;
    multiply_rows<kHead, kKeyTile>(weights, query, warp_row, key);
    multiply_rows<kHead, kKeyTile>(slopes, d_out, warp_row, key + kKeyTile * kHead);
    slopes_of(slopes, weights, rows, step * kKeyTile, seen_by_all, call.scale * kLog2e);
    add_weighted<kHead, kKeyTile>(d_query, slopes, key);
  }
  copy_async_wait<0>();
  store_rows<kHead>(
      head_of(static_cast<Bf16*>(call.d_query), call.d_query_stride, span.first_query, head, kHead),
      call.d_query_stride, first_query + warp_row, span.queries, d_query, call.scale);
}

template <int kHead>
void launch_backward(const AttentionBackward& call, LaunchContext& context) {
  AttentionTensors tensors = attention_tensors(call);
  const std::int64_t statistics = call.query.size(0) * call.query.size(1);
  tensors.delta = static_cast<float*>(
      context.workspace(static_cast<std::size_t>(2 * statistics) * sizeof(float)));
  tensors.log2_sum_exp = tensors.delta + statistics;
  attention_delta(tensors, DType::Bf16, context);
  const std::int64_t sequences = call.shape.query_offsets.size(0) - 1;
  const int group = tensors.heads / tensors.kv_heads;
  constexpr std::int64_t kRowBytes = 2 * kHead * sizeof(Bf16);  // key and value; query and d_out
  const auto bytes = [](int rows) { return static_cast<std::size_t>(rows) * kHead * sizeof(Bf16); };
  const BlockOrder of_keys =
      block_order(tensors, sequences, blocks_for(call.shape.max_key_length, kOwned), 1,
                  call.shape.max_query_length * group, kRowBytes);
  launch(context, blocks_in(of_keys, kThreads, bytes(2 * kOwned + 4 * kQueryTile)),
         d_key_value_kernel<kHead>, tensors, of_keys);
  const BlockOrder of_queries =
      block_order(tensors, sequences, blocks_for(call.shape.max_query_length, kOwned), group,
                  call.shape.max_key_length, kRowBytes);
  launch(context, blocks_in(of_queries, kThreads, bytes(2 * kOwned + 4 * kKeyTile)),
         d_query_kernel<kHead>, tensors, of_queries);
}

}  // namespace

void compute(const AttentionBackward& call, LaunchContext& context) {
  if (!fits_tensor_cores(call)) return attention_backward_plain(call, context);
  switch (call.query.size(2)) {
    case 64:
      return launch_backward<64>(call, context);
    case 96:
      return launch_backward<96>(call, context);
    default:
      return launch_backward<128>(call, context);
  }
}

}  // namespace rehearse
