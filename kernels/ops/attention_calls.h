#pragma once
#include "kernels/ops/tensor.h"

namespace rehearse {

/// Sequences of different lengths lie packed one behind the other: sequence i has the tokens
/// offsets[i] … offsets[i+1]−1. Query head h reads key/value head h / (heads / kv_heads).
/// A causal mask is aligned to the end: query i of l_q sees keys 0 … i + l_k − l_q. A query that
/// sees no key gives zeros, and −∞ as its log-sum-exp.
struct AttentionShape {
  ConstTensorView query_offsets;      ///< [sequences + 1] int32
  ConstTensorView key_offsets;        ///< [sequences + 1] int32
  std::int64_t max_query_length = 0;  ///< of any sequence; the host cannot read the offsets
  std::int64_t max_key_length = 0;
  bool causal = true;
  float scale = 1;  ///< of the scores, usually 1/√d
};

/// out = softmax(scale · q·kᵀ + mask) · v, without storing the scores (FlashAttention, Dao et al.
/// 2022, arXiv 2205.14135). The log-sum-exp of each row is kept for the backward.
struct AttentionForward {
  ConstTensorView query;        ///< (query tokens, heads, d)
  ConstTensorView key;          ///< (key tokens, kv_heads, d)
  ConstTensorView value;        ///< (key tokens, kv_heads, d)
  TensorView out;               ///< (query tokens, heads, d)
  TensorView log_sum_exp = {};  ///< (heads, query tokens) fp32, natural logarithm
  AttentionShape shape;
};

/// Gradients of AttentionForward; outputs are overwritten. Each element is summed by one owner in
/// one order, so that the same inputs give the same bytes.
struct AttentionBackward {
  ConstTensorView d_out, query, key, value, out, log_sum_exp;
  TensorView d_query, d_key, d_value;
  AttentionShape shape;
};

/// Joins what the same queries got from two sets of keys, as if from all of them at once: with
/// wₓ = exp(lseₓ), out = (w_a·a + w_b·b) / (w_a + w_b), log_sum_exp = log(w_a + w_b). Queries that
/// saw no key of either stay zeros and −∞. Without log-sum-exps: gradients, out = a + b. A running
/// sum, `a` and `out`, may be kept in fp32 beside bf16. `out` may be `a`'s memory.
struct AttentionJoin {
  ConstTensorView a, b;                                    ///< (tokens, heads, d)
  ConstTensorView a_log_sum_exp = {}, b_log_sum_exp = {};  ///< (heads, tokens) fp32
  TensorView out;                                          ///< (tokens, heads, d)
  TensorView log_sum_exp = {};                             ///< memory of its own
};

/// Writes each sequence's new key and value behind its cached ones. The cache is paged: position
/// p of sequence i lies in block block_table(i, p / block), slot p % block.
struct PagedAppend {
  ConstTensorView key, value;         ///< (sequences, kv_heads, d)
  TensorView key_cache, value_cache;  ///< (blocks, block, kv_heads, d)
  ConstTensorView block_table;        ///< (sequences, blocks of the longest) int32
  ConstTensorView positions;          ///< [sequences] int32: tokens cached before this one
};

/// Attention of one new token a sequence over its paged cache (decode).
struct PagedAttention {
  ConstTensorView query;  ///< (sequences, heads, d)
  ConstTensorView key_cache, value_cache;
  ConstTensorView block_table;
  ConstTensorView lengths;      ///< [sequences] int32: cached tokens, the new one included
  TensorView out;               ///< (sequences, heads, d)
  std::int64_t max_length = 0;  ///< of any sequence
  float scale = 1;
};

/// Rotates pairs (x[i], x[i + d/2]) of each head by the angle of the token's position, in place
/// (the "half" layout of Llama). `inverse` turns back: the gradient.
struct Rope {
  TensorView x;                 ///< (tokens, heads, d)
  ConstTensorView cosine_sine;  ///< (positions, d) fp32: d/2 cosines, then d/2 sines
  ConstTensorView positions;    ///< [tokens] int32
  bool inverse = false;
};

}  // namespace rehearse
