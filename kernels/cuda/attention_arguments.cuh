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
  float* log_sum_exp;  // (heads, query tokens); may be null forward
  float* delta;        // (heads, query tokens), backward
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
/// delta(head, token) = d_out · out, which both backward kernels need.
void attention_delta(const AttentionTensors& call, DType dtype, LaunchContext& context);

}  // namespace rehearse
