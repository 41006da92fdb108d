// Attention for fp32, and for head sizes and alignments the tensor-core kernels do not take: one
// warp a row, lanes share the head's elements. Meant to be right, not fast.
#include <algorithm>

#include "kernels/cuda/attention_arguments.cuh"
#include "kernels/cuda/reductions.cuh"

namespace rehearse {

AttentionTensors attention_tensors(const AttentionForward& call) {
  AttentionTensors tensors{};
  tensors.query = call.query.data;
  tensors.key = call.key.data;
  tensors.value = call.value.data;
  tensors.result = call.out.data;
  tensors.query_offsets = device_elements<std::int32_t>(call.shape.query_offsets);
  tensors.key_offsets = device_elements<std::int32_t>(call.shape.key_offsets);
  tensors.log_sum_exp = device_elements<float>(call.log_sum_exp);
  tensors.query_stride = call.query.shape.stride;
  tensors.key_stride = call.key.shape.stride;
  tensors.value_stride = call.value.shape.stride;
  tensors.out_stride = call.out.shape.stride;
  tensors.query_tokens = call.query.size(0);
  tensors.heads = int_size(call.query.size(1));
  tensors.kv_heads = int_size(call.key.size(1));
  tensors.d = int_size(call.query.size(2));
  tensors.scale = call.shape.scale;
  tensors.causal = call.shape.causal;
  return tensors;
}

AttentionTensors attention_tensors(const AttentionBackward& call) {
  AttentionForward forward;
  forward.query = call.query;
  forward.key = call.key;
  forward.value = call.value;
  forward.shape = call.shape;
  AttentionTensors tensors = attention_tensors(forward);
  tensors.out = call.out.data;
  tensors.out_stride = call.out.shape.stride;
  tensors.d_out = call.d_out.data;
  tensors.d_out_stride = call.d_out.shape.stride;
  // Read only; the field is written forward.
  tensors.log_sum_exp = const_cast<float*>(device_elements<float>(call.log_sum_exp));
  tensors.d_query = call.d_query.data;
  tensors.d_query_stride = call.d_query.shape.stride;
  tensors.d_key = call.d_key.data;
  tensors.d_key_stride = call.d_key.shape.stride;
  tensors.d_value = call.d_value.data;
  tensors.d_value_stride = call.d_value.shape.stride;
  return tensors;
}

BlockOrder block_order(const AttentionTensors& call, std::int64_t sequences, unsigned tiles,
                       int per_pair, std::int64_t rows, std::int64_t row_bytes) {
  // An A100's and an H200's L2 caches have two halves of 20 and 25 MB, each of which keeps what its
  // own multiprocessors read (NVIDIA A100 Tensor Core GPU Architecture, "A100 L2 cache").
  constexpr std::int64_t kCachedBytes = 16 << 20;
  const std::int64_t pairs = sequences * call.kv_heads;
  const std::int64_t cached =
      std::max<std::int64_t>(1, kCachedBytes / std::max<std::int64_t>(1, rows * row_bytes));
  return {.tiles = static_cast<int>(tiles),
          .pairs = int_size(pairs),
          .in_group = static_cast<int>(std::min(cached, std::max<std::int64_t>(1, pairs))),
          .kv_heads = call.kv_heads,
          .per_pair = per_pair};
}

namespace {

constexpr int kWarps = 4;
constexpr int kSlots = 8;  // elements of a head a lane holds
constexpr int kLargestHead = 32 * kSlots;

/// Rows that 16-byte chunks can be read from.
bool is_chunked(const ConstTensorView& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 && tensor.shape.stride % 8 == 0;
}

bool fits_common(const ConstTensorView& query, const AttentionShape& shape) {
  const std::int64_t d = query.size(2);
  return query.dtype == DType::Bf16 && (d == 64 || d == 96 || d == 128) && shape.scale > 0;
}

/// A lane's elements of a row: lane, lane + 32, …
template <typename T>
__device__ void load_row(float (&row)[kSlots], const T* from, int d) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kSlots; ++i)
    row[i] = lane + 32 * i < d ? device_float(from[lane + 32 * i]) : 0.0f;
}
template <typename T>
__device__ void store_row(T* to, const float (&row)[kSlots], float factor, int d) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kSlots; ++i)
    if (lane + 32 * i < d) device_store(to[lane + 32 * i], row[i] * factor);
}
__device__ float dot(const float (&a)[kSlots], const float (&b)[kSlots]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) sum += a[i] * b[i];
  return warp_reduce(sum, Plus{});
}
__device__ void add_scaled(float (&sum)[kSlots], float factor, const float (&row)[kSlots]) {
#pragma unroll
  for (int i = 0; i < kSlots; ++i) sum[i] += factor * row[i];
}

/// A warp's row and sequence. Sequences follow each other along the grid's x, the one direction
/// that takes more than 65,535 blocks.
struct WarpRow {
  int sequence, row;
};
__device__ WarpRow warp_row(int sequence_blocks) {
  const int block = static_cast<int>(blockIdx.x);
  return {block / sequence_blocks,
          block % sequence_blocks * kWarps + static_cast<int>(threadIdx.x) / 32};
}

template <typename T>
__global__ void plain_forward_kernel(AttentionTensors call, int sequence_blocks) {
  const WarpRow mine = warp_row(sequence_blocks);
  const DeviceSpan span = span_of(call, mine.sequence);
  const int i = mine.row, head = static_cast<int>(blockIdx.y), d = call.d;
  if (i >= span.queries) return;
  const int kv_head = head / (call.heads / call.kv_heads);
  const T* keys =
      head_of(static_cast<const T*>(call.key), call.key_stride, span.first_key, kv_head, d);
  const T* values =
      head_of(static_cast<const T*>(call.value), call.value_stride, span.first_key, kv_head, d);
  float query[kSlots], sum[kSlots] = {}, row[kSlots];
  load_row(
      query,
      head_of(static_cast<const T*>(call.query), call.query_stride, span.first_query, head, d) +
          i * call.query_stride,
      d);
  float maximum = -INFINITY, total = 0;
  for (int j = 0; j < span.visible(i); ++j) {
    load_row(row, keys + j * call.key_stride, d);
    const float score = dot(query, row) * call.scale;
    const float larger = fmaxf(maximum, score);
    const float fade = expf(maximum - larger), weight = expf(score - larger);
    maximum = larger;
    total = total * fade + weight;
    load_row(row, values + j * call.value_stride, d);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) sum[s] = sum[s] * fade + weight * row[s];
  }
  T* out = head_of(static_cast<T*>(call.result), call.out_stride, span.first_query, head, d);
  store_row(out + i * call.out_stride, sum, total == 0 ? 0.0f : 1.0f / total, d);
  if (call.log_sum_exp != nullptr && threadIdx.x % 32 == 0)
    call.log_sum_exp[head * call.query_tokens + span.first_query + i] =
        total == 0 ? -INFINITY : maximum + logf(total);
}

template <typename T>
__global__ void delta_kernel(AttentionTensors call) {
  const int token = warp_row(static_cast<int>(gridDim.x)).row;
  const int head = static_cast<int>(blockIdx.y);
  if (token >= call.query_tokens) return;
  float out[kSlots], d_out[kSlots];
  load_row(out, head_of(static_cast<const T*>(call.out), call.out_stride, token, head, call.d),
           call.d);
  load_row(d_out,
           head_of(static_cast<const T*>(call.d_out), call.d_out_stride, token, head, call.d),
           call.d);
  const float sum = dot(out, d_out);
  if (threadIdx.x % 32 != 0) return;
  const std::int64_t at = head * call.query_tokens + token;
  call.delta[at] = sum;
  if (call.log2_sum_exp == nullptr) return;
  const float lse = call.log_sum_exp[at];
  call.log2_sum_exp[at] = lse == -INFINITY ? INFINITY : lse * kLog2e;
}

/// What one query and one key have to do with each other: the weight p, and the slope of the
/// score, p · (d_out·v − δ).
struct Pair {
  float weight, slope;
};
__device__ Pair pair_of(float score, float product, float lse, float delta) {
  const float weight = expf(score - lse);
  return {weight, weight * (product - delta)};
}

template <typename T>
__global__ void plain_d_query_kernel(AttentionTensors call, int sequence_blocks) {
  const WarpRow mine = warp_row(sequence_blocks);
  const DeviceSpan span = span_of(call, mine.sequence);
  const int i = mine.row, head = static_cast<int>(blockIdx.y), d = call.d;
  if (i >= span.queries) return;
  const int kv_head = head / (call.heads / call.kv_heads);
  const T* keys =
      head_of(static_cast<const T*>(call.key), call.key_stride, span.first_key, kv_head, d);
  const T* values =
      head_of(static_cast<const T*>(call.value), call.value_stride, span.first_key, kv_head, d);
  float query[kSlots], d_out[kSlots], sum[kSlots] = {}, key[kSlots], value[kSlots];
  const int token = span.first_query + i;
  load_row(query, head_of(static_cast<const T*>(call.query), call.query_stride, token, head, d), d);
  load_row(d_out, head_of(static_cast<const T*>(call.d_out), call.d_out_stride, token, head, d), d);
  const float lse = call.log_sum_exp[head * call.query_tokens + token];
  const float delta = call.delta[head * call.query_tokens + token];
  for (int j = 0; j < span.visible(i); ++j) {
    load_row(key, keys + j * call.key_stride, d);
    load_row(value, values + j * call.value_stride, d);
    const Pair pair = pair_of(dot(query, key) * call.scale, dot(d_out, value), lse, delta);
    add_scaled(sum, pair.slope, key);
  }
  store_row(head_of(static_cast<T*>(call.d_query), call.d_query_stride, token, head, d), sum,
            call.scale, d);
}

template <typename T>
__global__ void plain_d_key_value_kernel(AttentionTensors call, int sequence_blocks) {
  const WarpRow mine = warp_row(sequence_blocks);
  const DeviceSpan span = span_of(call, mine.sequence);
  const int j = mine.row, kv_head = static_cast<int>(blockIdx.y), d = call.d;
  if (j >= span.keys) return;
  const int token = span.first_key + j, group = call.heads / call.kv_heads;
  float key[kSlots], value[kSlots], d_key[kSlots] = {}, d_value[kSlots] = {};
  float query[kSlots], d_out[kSlots];
  load_row(key, head_of(static_cast<const T*>(call.key), call.key_stride, token, kv_head, d), d);
  load_row(value, head_of(static_cast<const T*>(call.value), call.value_stride, token, kv_head, d),
           d);
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int i = 0; i < span.queries; ++i) {
      if (j >= span.visible(i)) continue;
      const int row = span.first_query + i;
      load_row(query, head_of(static_cast<const T*>(call.query), call.query_stride, row, head, d),
               d);
      load_row(d_out, head_of(static_cast<const T*>(call.d_out), call.d_out_stride, row, head, d),
               d);
      const std::int64_t at = head * call.query_tokens + row;
      const Pair pair = pair_of(dot(query, key) * call.scale, dot(d_out, value),
                                call.log_sum_exp[at], call.delta[at]);
      add_scaled(d_key, pair.slope, query);
      add_scaled(d_value, pair.weight, d_out);
    }
  store_row(head_of(static_cast<T*>(call.d_key), call.d_key_stride, token, kv_head, d), d_key,
            call.scale, d);
  store_row(head_of(static_cast<T*>(call.d_value), call.d_value_stride, token, kv_head, d), d_value,
            1.0f, d);
}

void check_head(const char* name, const ConstTensorView& query) {
  if (query.size(2) > kLargestHead)
    throw OperatorError(std::string(name) + ": a head of " + std::to_string(query.size(2)) +
                        " elements is larger than the device's " + std::to_string(kLargestHead));
}

/// `blocks` of a sequence, for every sequence and head.
LaunchShape warp_a_row(int blocks, std::int64_t sequences, std::int64_t heads) {
  return {.grid = {blocks_for(blocks * sequences, 1), static_cast<unsigned>(heads)},
          .block = {kWarps * 32}};
}
int sequence_blocks(std::int64_t rows) { return static_cast<int>(blocks_for(rows, kWarps)); }

}  // namespace

bool fits_tensor_cores(const AttentionForward& call) {
  return fits_common(call.query, call.shape) && is_chunked(call.query) && is_chunked(call.key) &&
         is_chunked(call.value) && is_chunked(call.out);
}

bool fits_tensor_cores(const AttentionBackward& call) {
  return fits_common(call.query, call.shape) && is_chunked(call.query) && is_chunked(call.key) &&
         is_chunked(call.value) && is_chunked(call.d_out) && is_chunked(call.d_query) &&
         is_chunked(call.d_key) && is_chunked(call.d_value);
}

void attention_forward_plain(const AttentionForward& call, LaunchContext& context) {
  check_head("attention_forward", call.query);
  const int blocks = sequence_blocks(call.shape.max_query_length);
  with_device_type("attention_forward", call.query.dtype, [&](auto tag) {
    launch(context, warp_a_row(blocks, call.shape.query_offsets.size(0) - 1, call.query.size(1)),
           plain_forward_kernel<decltype(tag)>, attention_tensors(call), blocks);
  });
}

void attention_delta(const AttentionTensors& tensors, DType dtype, LaunchContext& context) {
  with_device_type("attention_backward", dtype, [&](auto tag) {
    launch(context, warp_a_row(sequence_blocks(tensors.query_tokens), 1, tensors.heads),
           delta_kernel<decltype(tag)>, tensors);
  });
}

void attention_backward_plain(const AttentionBackward& call, LaunchContext& context) {
  check_head("attention_backward", call.query);
  AttentionTensors tensors = attention_tensors(call);
  tensors.delta = static_cast<float*>(context.workspace(
      static_cast<std::size_t>(call.query.size(0) * call.query.size(1)) * sizeof(float)));
  attention_delta(tensors, call.query.dtype, context);
  const std::int64_t sequences = call.shape.query_offsets.size(0) - 1;
  with_device_type("attention_backward", call.query.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int of_queries = sequence_blocks(call.shape.max_query_length);
    launch(context, warp_a_row(of_queries, sequences, call.query.size(1)), plain_d_query_kernel<T>,
           tensors, of_queries);
    const int of_keys = sequence_blocks(call.shape.max_key_length);
    launch(context, warp_a_row(of_keys, sequences, call.key.size(1)), plain_d_key_value_kernel<T>,
           tensors, of_keys);
  });
}

}  // namespace rehearse
