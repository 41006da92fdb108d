// Decode: one new query a sequence over a paged cache. Bound by memory: the cached keys and values
// are read once. The query heads that share a key/value head fill the 16 rows of a tensor-core
// product; warps of a block take different keys, blocks different stretches of the sequence
// (split-KV), and a second kernel merges the stretches.
#include <algorithm>

#include "kernels/cuda/attention_arguments.cuh"
#include "kernels/cuda/reductions.cuh"
#include "kernels/cuda/tiles.cuh"

namespace rehearse {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;                 // query heads of a group a block takes
constexpr int kKeys = kWarps * 16;        // keys a tile, 16 a warp
constexpr std::int64_t kLeastKeys = 256;  // a stretch is worth a block from here on

struct DecodeTensors {
  const void *query, *key_cache, *value_cache;
  void* out;
  const std::int32_t *block_table, *lengths;
  float *partial_out, *partial_maximum, *partial_sum;  // (splits, sequences, heads[, d])
  std::int64_t query_stride, out_stride;
  int table_columns, block_size, heads, kv_heads, d, sequences, splits;
  float scale;
};

/// First element of a cached position of one key/value head.
template <typename T>
__device__ __forceinline__ const T* cached(const void* cache, const DecodeTensors& call,
                                           int sequence, int position, int kv_head) {
  const std::int64_t block =
      call.block_table[static_cast<std::int64_t>(sequence) * call.table_columns +
                       position / call.block_size];
  const std::int64_t row = block * call.block_size + position % call.block_size;
  return static_cast<const T*>(cache) + (row * call.kv_heads + kv_head) * call.d;
}

template <int kHead>
__device__ __forceinline__ void load_cached(Bf16* tile, const void* cache,
                                            const DecodeTensors& call, int sequence, int kv_head,
                                            int first, int end) {
  constexpr int kChunks = kHead / 8;
  for (int index = static_cast<int>(threadIdx.x); index < kKeys * kChunks; index += kThreads) {
    const int row = index / kChunks, chunk = index % kChunks;
    const bool valid = first + row < end;
    // The first position of the stretch exists; it stands in where nothing is read.
    const Bf16* from = cached<Bf16>(cache, call, sequence, valid ? first + row : 0, kv_head);
    copy_async_16(tile + tile_offset<kHead>(row, chunk), from + chunk * 8, valid);
  }
}

/// A warp's share: output and running softmax of 16 rows over its keys.
template <int kHead>
struct DecodeWarp {
  float out[kHead / 8][4];
  float maximum[2], sum[2];
};

template <int kHead>
__device__ __forceinline__ void attend(DecodeWarp<kHead>& warp, const Bf16* query, const Bf16* key,
                                       const Bf16* value, int first_row, int keys_left,
                                       float scale_log2) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float scores[2][4] = {};
#pragma unroll
  for (int step = 0; step < kHead / 16; ++step) {
    std::uint32_t a[4], b[4];
    load_left<kHead>(a, query, 0, step);
    load_right<kHead>(b, key, first_row, step);
    mma_bf16(scores[0], a, b[0], b[1]);
    mma_bf16(scores[1], a, b[2], b[3]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = warp.maximum[half];
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        if (first_row + 8 * n + 2 * (lane % 4) + i >= keys_left) score = -INFINITY;
        maximum = fmaxf(maximum, score);
      }
    maximum = fmaxf(maximum, __shfl_xor_sync(kFullWarp, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(kFullWarp, maximum, 2));
    const float base = maximum == -INFINITY ? 0.0f : maximum * scale_log2;
    const float fade = exp2_fast(warp.maximum[half] * scale_log2 - base);
    warp.maximum[half] = maximum;
    warp.sum[half] *= fade;
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        score = exp2_fast(score * scale_log2 - base);
        warp.sum[half] += score;
      }
#pragma unroll
    for (int n = 0; n < kHead / 8; ++n) {
      warp.out[n][2 * half] *= fade;
      warp.out[n][2 * half + 1] *= fade;
    }
  }
  std::uint32_t weights[4];
  pack_left(weights, scores[0], scores[1]);
#pragma unroll
  for (int n = 0; n < kHead / 16; ++n) {
    std::uint32_t b[4];
    load_right_transposed<kHead>(b, value, first_row, n);
    mma_bf16(warp.out[2 * n], weights, b[0], b[1]);
    mma_bf16(warp.out[2 * n + 1], weights, b[2], b[3]);
  }
}

/// Merges the warps' shares through shared memory and writes the stretch's result, not yet divided
/// by its sum.
template <int kHead>
__device__ void store_stretch(const DecodeTensors& call, DecodeWarp<kHead>& warp, float* scratch,
                              int sequence, int first_head, int rows) {
  float* outs = scratch;                          // (warps, rows, d)
  float* maxima = outs + kWarps * kRows * kHead;  // (warps, rows)
  float* sums = maxima + kWarps * kRows;          // (warps, rows)
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, index = thread / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    float sum = warp.sum[half];
    sum += __shfl_xor_sync(kFullWarp, sum, 1);
    sum += __shfl_xor_sync(kFullWarp, sum, 2);
    maxima[index * kRows + row] = warp.maximum[half];
    sums[index * kRows + row] = sum;
#pragma unroll
    for (int n = 0; n < kHead / 8; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        outs[(index * kRows + row) * kHead + 8 * n + 2 * (lane % 4) + i] =
            warp.out[n][2 * half + i];
  }
  __syncthreads();
  const float scale_log2 = call.scale * kLog2e;
  const std::int64_t part =
      (static_cast<std::int64_t>(blockIdx.z) * call.sequences + sequence) * call.heads + first_head;
  for (int at = thread; at < rows * kHead; at += kThreads) {
    const int row = at / kHead, column = at % kHead;
    float maximum = -INFINITY, sum = 0, total = 0;
    for (int w = 0; w < kWarps; ++w) maximum = fmaxf(maximum, maxima[w * kRows + row]);
    for (int w = 0; w < kWarps; ++w) {
      const float fade =
          maximum == -INFINITY ? 0.0f : exp2_fast((maxima[w * kRows + row] - maximum) * scale_log2);
      sum += sums[w * kRows + row] * fade;
      total += outs[(w * kRows + row) * kHead + column] * fade;
    }
    call.partial_out[(part + row) * kHead + column] = total;
    if (column == 0) {
      call.partial_maximum[part + row] = maximum;
      call.partial_sum[part + row] = sum;
    }
  }
}

template <int kHead>
constexpr std::size_t decode_shared_bytes() {
  const std::size_t tiles = (kRows + 4 * kKeys) * kHead * sizeof(Bf16);
  const std::size_t merge = kWarps * kRows * (kHead + 2) * sizeof(float);
  return tiles > merge ? tiles : merge;
}

template <int kHead>
__global__ void __launch_bounds__(kThreads) decode_kernel(DecodeTensors call) {
  const int sequence = static_cast<int>(blockIdx.x), group = call.heads / call.kv_heads;
  const int parts = (group + kRows - 1) / kRows;  // of a group, 16 heads each
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int first_in_group = static_cast<int>(blockIdx.y) % parts * kRows;
  const int first_head = kv_head * group + first_in_group;
  const int rows = min(kRows, group - first_in_group);
  const int length = call.lengths[sequence];
  // Stretches are whole tiles.
  const int tiles = (length + kKeys - 1) / kKeys;
  const int split = static_cast<int>(blockIdx.z);
  const int first_tile = static_cast<int>(static_cast<std::int64_t>(tiles) * split / call.splits);
  const int last_tile =
      static_cast<int>(static_cast<std::int64_t>(tiles) * (split + 1) / call.splits);

  Bf16* query = static_cast<Bf16*>(dynamic_shared_memory());
  Bf16* stages = query + kRows * kHead;
  load_tile<kRows, kHead, kThreads>(
      query,
      {static_cast<const Bf16*>(call.query) + sequence * call.query_stride +
           static_cast<std::int64_t>(first_head) * kHead,
       kHead, rows},
      0);
  const auto load_stage = [&](int tile) {
    Bf16* key = stages + (tile - first_tile) % 2 * 2 * kKeys * kHead;
    load_cached<kHead>(key, call.key_cache, call, sequence, kv_head, tile * kKeys, length);
    load_cached<kHead>(key + kKeys * kHead, call.value_cache, call, sequence, kv_head, tile * kKeys,
                       length);
  };
  DecodeWarp<kHead> warp = {};
  warp.maximum[0] = warp.maximum[1] = -INFINITY;
  if (first_tile < last_tile) load_stage(first_tile);
  copy_async_commit();
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  for (int tile = first_tile; tile < last_tile; ++tile) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before any more
    if (tile + 1 < last_tile) load_stage(tile + 1);
    copy_async_commit();
    const Bf16* key = stages + (tile - first_tile) % 2 * 2 * kKeys * kHead;
    attend<kHead>(warp, query, key, key + kKeys * kHead, first_row, length - tile * kKeys,
                  call.scale * kLog2e);
  }
  copy_async_wait<0>();
  __syncthreads();  // the tiles' memory becomes the merge's
  store_stretch<kHead>(call, warp, static_cast<float*>(dynamic_shared_memory()), sequence,
                       first_head, rows);
}

/// One block a (head, sequence): weighs the stretches by their sums.
__global__ void merge_stretches_kernel(DecodeTensors call) {
  const int sequence = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const std::int64_t step = static_cast<std::int64_t>(call.sequences) * call.heads;
  const std::int64_t first = static_cast<std::int64_t>(sequence) * call.heads + head;
  float maximum = -INFINITY;
  for (int s = 0; s < call.splits; ++s)
    maximum = fmaxf(maximum, call.partial_maximum[s * step + first]);
  Bf16* out = static_cast<Bf16*>(call.out) + sequence * call.out_stride +
              static_cast<std::int64_t>(head) * call.d;
  for (int j = static_cast<int>(threadIdx.x); j < call.d; j += static_cast<int>(blockDim.x)) {
    float sum = 0, total = 0;
    for (int s = 0; s < call.splits && maximum != -INFINITY; ++s) {
      const std::int64_t part = s * step + first;
      const float fade = exp2_fast((call.partial_maximum[part] - maximum) * call.scale * kLog2e);
      sum += call.partial_sum[part] * fade;
      total += call.partial_out[part * call.d + j] * fade;
    }
    device_store(out[j], sum == 0 ? 0.0f : total / sum);
  }
}

constexpr int kSlots = 8;

/// One warp a (head, sequence) walks over the whole cache: other types, sizes and alignments.
template <typename T>
__global__ void plain_decode_kernel(DecodeTensors call) {
  const int sequence = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (call.heads / call.kv_heads), lane = static_cast<int>(threadIdx.x);
  const T* from = static_cast<const T*>(call.query) + sequence * call.query_stride +
                  static_cast<std::int64_t>(head) * call.d;
  float query[kSlots], sum[kSlots] = {};
  for (int i = 0; i < kSlots; ++i)
    query[i] = lane + 32 * i < call.d ? device_float(from[lane + 32 * i]) : 0.0f;
  float maximum = -INFINITY, total = 0;
  for (int p = 0; p < call.lengths[sequence]; ++p) {
    const T* key = cached<T>(call.key_cache, call, sequence, p, kv_head);
    const T* value = cached<T>(call.value_cache, call, sequence, p, kv_head);
    float score = 0;
    for (int i = 0; i < kSlots; ++i)
      if (lane + 32 * i < call.d) score += query[i] * device_float(key[lane + 32 * i]);
    score = warp_reduce(score, Plus{}) * call.scale;
    const float larger = fmaxf(maximum, score);
    const float fade = expf(maximum - larger), weight = expf(score - larger);
    maximum = larger;
    total = total * fade + weight;
    for (int i = 0; i < kSlots; ++i)
      if (lane + 32 * i < call.d)
        sum[i] = sum[i] * fade + weight * device_float(value[lane + 32 * i]);
  }
  T* out = static_cast<T*>(call.out) + sequence * call.out_stride +
           static_cast<std::int64_t>(head) * call.d;
  for (int i = 0; i < kSlots; ++i)
    if (lane + 32 * i < call.d)
      device_store(out[lane + 32 * i], total == 0 ? 0.0f : sum[i] / total);
}

DecodeTensors decode_tensors(const PagedAttention& call) {
  DecodeTensors tensors{};
  tensors.query = call.query.data;
  tensors.key_cache = call.key_cache.data;
  tensors.value_cache = call.value_cache.data;
  tensors.out = call.out.data;
  tensors.block_table = device_elements<std::int32_t>(call.block_table);
  tensors.lengths = device_elements<std::int32_t>(call.lengths);
  tensors.query_stride = call.query.shape.stride;
  tensors.out_stride = call.out.shape.stride;
  tensors.table_columns = int_size(call.block_table.size(1));
  tensors.block_size = int_size(call.key_cache.size(1));
  tensors.heads = int_size(call.query.size(1));
  tensors.kv_heads = int_size(call.key_cache.size(2));
  tensors.d = int_size(call.query.size(2));
  tensors.sequences = int_size(call.query.size(0));
  tensors.scale = call.scale;
  return tensors;
}

bool fits_tensor_cores(const PagedAttention& call) {
  const std::int64_t d = call.query.size(2);
  const auto aligned = [](const ConstTensorView& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 && tensor.shape.stride % 8 == 0;
  };
  return call.query.dtype == DType::Bf16 && (d == 64 || d == 96 || d == 128) && call.scale > 0 &&
         aligned(call.query) && aligned(call.key_cache) && aligned(call.value_cache);
}

template <int kHead>
void launch_decode(const PagedAttention& call, DecodeTensors tensors, LaunchContext& context) {
  const int group = tensors.heads / tensors.kv_heads;
  const std::int64_t columns = std::int64_t{tensors.kv_heads} * ((group + kRows - 1) / kRows);
  // Enough stretches to fill the device twice, none too short.
  const std::int64_t wanted =
      2 * context.multiprocessors / std::max<std::int64_t>(1, columns * tensors.sequences);
  tensors.splits = static_cast<int>(
      std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, call.max_length / kLeastKeys)));
  const std::int64_t parts = std::int64_t{tensors.splits} * tensors.sequences * tensors.heads;
  tensors.partial_out = static_cast<float*>(
      context.workspace(static_cast<std::size_t>(parts * (kHead + 2)) * sizeof(float)));
  tensors.partial_maximum = tensors.partial_out + parts * kHead;
  tensors.partial_sum = tensors.partial_maximum + parts;
  launch(context,
         {.grid = {static_cast<unsigned>(tensors.sequences), static_cast<unsigned>(columns),
                   static_cast<unsigned>(tensors.splits)},
          .block = {kThreads},
          .shared_bytes = decode_shared_bytes<kHead>()},
         decode_kernel<kHead>, tensors);
  launch(context,
         {.grid = {static_cast<unsigned>(tensors.sequences), static_cast<unsigned>(tensors.heads)},
          .block = {64}},
         merge_stretches_kernel, tensors);
}

/// Copies one token's rows of a sequence into its block of the cache.
template <typename T>
__global__ void append_kernel(const T* key, const T* value, T* key_cache, T* value_cache,
                              const std::int32_t* block_table, const std::int32_t* positions,
                              std::int64_t key_stride, std::int64_t value_stride, int table_columns,
                              int block_size, int row_elements) {
  const std::int64_t sequence = blockIdx.x;
  const int position = positions[sequence];
  const std::int64_t block = block_table[sequence * table_columns + position / block_size];
  const std::int64_t row = (block * block_size + position % block_size) * row_elements;
  for (int i = static_cast<int>(threadIdx.x); i < row_elements; i += static_cast<int>(blockDim.x)) {
    key_cache[row + i] = key[sequence * key_stride + i];
    value_cache[row + i] = value[sequence * value_stride + i];
  }
}

}  // namespace

void compute(const PagedAttention& call, LaunchContext& context) {
  const DecodeTensors tensors = decode_tensors(call);
  if (fits_tensor_cores(call)) {
    switch (tensors.d) {
      case 64:
        return launch_decode<64>(call, tensors, context);
      case 96:
        return launch_decode<96>(call, tensors, context);
      default:
        return launch_decode<128>(call, tensors, context);
    }
  }
  if (tensors.d > 32 * kSlots)
    throw OperatorError("paged_attention: a head of " + std::to_string(tensors.d) +
                        " elements is larger than the device's " + std::to_string(32 * kSlots));
  with_device_type("paged_attention", call.query.dtype, [&](auto tag) {
    launch(
        context,
        {.grid = {static_cast<unsigned>(tensors.sequences), static_cast<unsigned>(tensors.heads)},
         .block = {32}},
        plain_decode_kernel<decltype(tag)>, tensors);
  });
}

void compute(const PagedAppend& call, LaunchContext& context) {
  with_device_type("paged_append", call.key.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(context, {.grid = {static_cast<unsigned>(call.key.size(0))}, .block = {256}},
           append_kernel<T>, device_elements<T>(call.key), device_elements<T>(call.value),
           device_elements<T>(call.key_cache), device_elements<T>(call.value_cache),
           device_elements<std::int32_t>(call.block_table),
           device_elements<std::int32_t>(call.positions), call.key.shape.stride,
           call.value.shape.stride, int_size(call.block_table.size(1)),
           int_size(call.key_cache.size(1)), int_size(call.key.size(1) * call.key.size(2)));
  });
}

}  // namespace rehearse
