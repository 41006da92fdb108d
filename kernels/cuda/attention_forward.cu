// Attention forward in bf16 on the tensor cores, after FlashAttention-2 (Dao 2023, arXiv
// 2307.08691): a block keeps a tile of queries and their output in registers and walks over the
// keys with a running softmax. Bound by the tensor cores: 4·d FLOPs a query and key (half of the
// square when causal) against d·(2 + 2·s/kRows) elements read.
#include "kernels/cuda/attention_arguments.cuh"
#include "kernels/cuda/tiles.cuh"

namespace rehearse {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kKeys = 64;  // keys a tile

/// Row tiles of 16 queries a warp. Two share each fragment of keys and values, which halves the
/// traffic with shared memory.
template <int kHead>
inline constexpr int kRowTiles = 2;
template <int kHead>
inline constexpr int kQueries = kWarps * 16 * kRowTiles<kHead>;

template <int kHead>
constexpr std::size_t shared_bytes() {
  return static_cast<std::size_t>(kQueries<kHead> + 2 * kKeys) * kHead * sizeof(Bf16);
}

/// A warp's state: scores of the current tile, output so far, running maxima and sums of its rows.
template <int kHead>
struct WarpState {
  float scores[kRowTiles<kHead>][kKeys / 8][4];
  float out[kRowTiles<kHead>][kHead / 8][4];
  float maximum[kRowTiles<kHead>][2];
  float sum[kRowTiles<kHead>][2];
};

template <int kHead>
__device__ __forceinline__ void compute_scores(WarpState<kHead>& warp, const Bf16* query,
                                               const Bf16* key, int first_row) {
#pragma unroll
  for (int r = 0; r < kRowTiles<kHead>; ++r)
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) warp.scores[r][n][i] = 0;
  // Addresses of further steps do not fit beside the accumulators of 128 columns; the products of
  // one step, and the other warp of the scheduler, cover its loads.
  [[maybe_unused]] constexpr int kUnrolled = kHead < 128 ? 2 : 1;
#pragma unroll kUnrolled
  for (int step = 0; step < kHead / 16; ++step) {
    std::uint32_t a[kRowTiles<kHead>][4];
#pragma unroll
    for (int r = 0; r < kRowTiles<kHead>; ++r)
      load_left<kHead>(a[r], query, first_row + 16 * r, step);
#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      std::uint32_t b[4];
      load_right<kHead>(b, key, 16 * n, step);
#pragma unroll
      for (int r = 0; r < kRowTiles<kHead>; ++r) {
        mma_bf16(warp.scores[r][2 * n], a[r], b[0], b[1]);
        mma_bf16(warp.scores[r][2 * n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

/// Scores beyond what a row sees become −∞. Element i of a fragment: row lane/4 + 8·(i/2), column
/// 2·(lane%4) + i%2.
template <int kHead>
__device__ __forceinline__ void mask_scores(WarpState<kHead>& warp, const DeviceSpan& span,
                                            int first_query, int first_key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < kRowTiles<kHead>; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = span.visible(first_query + 16 * r + lane / 4 + 8 * half) - first_key;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (8 * n + 2 * (lane % 4) + i >= visible) warp.scores[r][n][2 * half + i] = -INFINITY;
    }
}

/// The running softmax: raises the maxima, rescales what was summed, turns scores into weights.
template <int kHead>
__device__ __forceinline__ void update_softmax(WarpState<kHead>& warp, float scale_log2) {
#pragma unroll
  for (int r = 0; r < kRowTiles<kHead>; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float maximum = warp.maximum[r][half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) maximum = fmaxf(maximum, warp.scores[r][n][2 * half + i]);
      // Four neighbouring lanes hold a row.
      maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
      maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
      const float base = maximum == -INFINITY ? 0.0f : maximum * scale_log2;
      const float fade = exp2_fast(warp.maximum[r][half] * scale_log2 - base);
      warp.maximum[r][half] = maximum;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = warp.scores[r][n][2 * half + i];
          score = exp2_fast(score * scale_log2 - base);
          sum += score;
        }
      warp.sum[r][half] = warp.sum[r][half] * fade + sum;
#pragma unroll
      for (int n = 0; n < kHead / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) warp.out[r][n][2 * half + i] *= fade;
    }
}

template <int kHead>
__device__ __forceinline__ void add_values(WarpState<kHead>& warp, const Bf16* value) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    std::uint32_t a[kRowTiles<kHead>][4];
#pragma unroll
    for (int r = 0; r < kRowTiles<kHead>; ++r)
      pack_left(a[r], warp.scores[r][2 * step], warp.scores[r][2 * step + 1]);
#pragma unroll
    for (int n = 0; n < kHead / 16; ++n) {
      std::uint32_t b[4];
      load_right_transposed<kHead>(b, value, 16 * step, n);
#pragma unroll
      for (int r = 0; r < kRowTiles<kHead>; ++r) {
        mma_bf16(warp.out[r][2 * n], a[r], b[0], b[1]);
        mma_bf16(warp.out[r][2 * n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

template <int kHead>
__device__ __forceinline__ void store_output(const AttentionTensors& call, WarpState<kHead>& warp,
                                             const DeviceSpan& span, int first_query, int head) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Bf16* out =
      head_of(static_cast<Bf16*>(call.result), call.out_stride, span.first_query, head, kHead);
#pragma unroll
  for (int r = 0; r < kRowTiles<kHead>; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = warp.sum[r][half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int query = first_query + 16 * r + lane / 4 + 8 * half;
      if (query >= span.queries) continue;
      const float inverse = sum == 0 ? 0.0f : 1.0f / sum;
      Bf16* row = out + query * call.out_stride + 2 * (lane % 4);
#pragma unroll
      for (int n = 0; n < kHead / 8; ++n)
        store_pair(row + 8 * n, warp.out[r][n][2 * half] * inverse,
                   warp.out[r][n][2 * half + 1] * inverse);
      if (call.log_sum_exp != nullptr && lane % 4 == 0)
        call.log_sum_exp[head * call.query_tokens + span.first_query + query] =
            sum == 0 ? -INFINITY : warp.maximum[r][half] * call.scale + logf(sum);
    }
}

/// What a block works on. It stays in shared memory: registers are short while tiles are summed.
struct ForwardBlock {
  DeviceSpan span;
  int first_query, head;
  int seen;  // keys, by the row that sees the most
  TileSource keys, values;
};

template <int kHead>
__device__ __forceinline__ ForwardBlock forward_block(const AttentionTensors& call,
                                                      const BlockOrder& order) {
  const BlockPlace place = place_of(order);
  const DeviceSpan span = span_of(call, place.sequence);
  const auto source = [&](const void* tensor, std::int64_t stride) {
    return TileSource{
        head_of(static_cast<const Bf16*>(tensor), stride, span.first_key, place.kv_head, kHead),
        stride, span.keys};
  };
  // Causal tiles grow towards the end.
  const int first_query = (order.tiles - 1 - place.rank) * kQueries<kHead>;
  const int last_query = min(first_query + kQueries<kHead>, span.queries) - 1;
  return {span,
          first_query,
          place.kv_head * order.per_pair + place.member,
          span.visible(last_query),
          source(call.key, call.key_stride),
          source(call.value, call.value_stride)};
}

template <int kHead>
__global__ void __launch_bounds__(kThreads)
    attention_forward_kernel(AttentionTensors call, BlockOrder order) {
  __shared__ ForwardBlock block;
  if (threadIdx.x == 0) block = forward_block<kHead>(call, order);
  __syncthreads();
  if (block.first_query >= block.span.queries) return;

  Bf16* query = static_cast<Bf16*>(dynamic_shared_memory());
  Bf16* key = query + kQueries<kHead> * kHead;
  Bf16* value = key + kKeys * kHead;
  const TileSource queries{head_of(static_cast<const Bf16*>(call.query), call.query_stride,
                                   block.span.first_query, block.head, kHead),
                           call.query_stride, block.span.queries};

  WarpState<kHead> warp = {};
#pragma unroll
  for (int r = 0; r < kRowTiles<kHead>; ++r) warp.maximum[r][0] = warp.maximum[r][1] = -INFINITY;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16 * kRowTiles<kHead>;
  load_tile<kQueries<kHead>, kHead, kThreads>(query, queries, block.first_query);
  if (block.seen > 0) load_tile<kKeys, kHead, kThreads>(key, block.keys, 0);
  copy_async_commit();
  for (int first_key = 0; first_key < block.seen; first_key += kKeys) {
    copy_async_wait<0>();
    __syncthreads();  // the keys are here, and nobody reads the last values any more
    load_tile<kKeys, kHead, kThreads>(value, block.values, first_key);
    copy_async_commit();
    compute_scores<kHead>(warp, query, key, first_row);
    // The first row of the warp sees the fewest keys.
    if (first_key + kKeys > block.span.visible(block.first_query + first_row))
      mask_scores<kHead>(warp, block.span, block.first_query + first_row, first_key);
    update_softmax<kHead>(warp, call.scale * kLog2e);
    copy_async_wait<0>();
    __syncthreads();  // the values are here, and nobody reads these keys any more
    if (first_key + kKeys < block.seen)
      load_tile<kKeys, kHead, kThreads>(key, block.keys, first_key + kKeys);
    copy_async_commit();
    add_values<kHead>(warp, value);
  }
  copy_async_wait<0>();
  store_output<kHead>(call, warp, block.span, block.first_query + first_row, block.head);
}

template <int kHead>
void launch_forward(const AttentionForward& call, LaunchContext& context) {
  const AttentionTensors tensors = attention_tensors(call);
  constexpr std::int64_t kKeyBytes = 2 * kHead * sizeof(Bf16);  // and the value's
  const BlockOrder order =
      block_order(tensors, call.shape.query_offsets.size(0) - 1,
                  blocks_for(call.shape.max_query_length, kQueries<kHead>),
                  tensors.heads / tensors.kv_heads, call.shape.max_key_length, kKeyBytes);
  launch(context, blocks_in(order, kThreads, shared_bytes<kHead>()),
         attention_forward_kernel<kHead>, tensors, order);
}

}  // namespace

void compute(const AttentionForward& call, LaunchContext& context) {
  if (!fits_tensor_cores(call)) return attention_forward_plain(call, context);
  switch (call.query.size(2)) {
    case 64:
      return launch_forward<64>(call, context);
    case 96:
      return launch_forward<96>(call, context);
    default:
      return launch_forward<128>(call, context);
  }
}

}  // namespace rehearse
