#include "kernels/ops/call_checker.h"

namespace rehearse {
namespace {

constexpr auto kFloats = {DType::F32, DType::Bf16, DType::F64};
constexpr auto kGemmInputs = {DType::F32, DType::Bf16, DType::F64, DType::F8E4m3};
constexpr auto kNarrowResults = {DType::Bf16, DType::F32};
constexpr auto kFp32 = {DType::F32};
constexpr auto kInt32 = {DType::I32};

struct GemmSizes {
  std::int64_t m = 0, n = 0, k = 0;
};

void check_epilogue(const CallChecker& check, const Gemm& call, const GemmSizes& sizes) {
  const bool has_bias = call.epilogue == Epilogue::Bias || call.epilogue == Epilogue::BiasGelu;
  const bool has_activation =
      call.epilogue == Epilogue::BiasGelu || call.epilogue == Epilogue::GeluGradient;
  check.require(call.bias.given() == has_bias, "\"bias\" is given with a bias epilogue, only then");
  check.require(call.pre_activation.given() == has_activation,
                "\"pre_activation\" is given with a GeLU epilogue, and only then");
  check.require(call.epilogue == Epilogue::None || (call.out.shape.rank == 2 && !call.accumulate),
                "an epilogue goes with a single product that is not accumulated");
  if (has_bias) check.tensor("bias", call.bias, {sizes.n}, {call.out.dtype, DType::F32});
  if (has_activation)
    check.tensor("pre_activation", call.pre_activation, {sizes.m, sizes.n}, {call.out.dtype});
}

void check_fp8(const CallChecker& check, const Gemm& call) {
  const bool is_fp8 = call.a.dtype == DType::F8E4m3;
  check.require(call.a_scale.given() == is_fp8 && call.b_scale.given() == is_fp8,
                "\"a_scale\" and \"b_scale\" are given with fp8, and only then");
  if (!is_fp8) return;
  check.tensor("a_scale", call.a_scale, {1}, kFp32);
  check.tensor("b_scale", call.b_scale, {1}, kFp32);
  check.require(!call.transpose_a && call.transpose_b, "fp8 offers a·bᵀ only");
}

}  // namespace

void check_call(const Gemm& call) {
  const CallChecker check("gemm");
  const int rank = call.out.shape.rank;
  check.require(rank == 2 || rank == 3, [&] {
    return "tensor \"out\" has two or three dimensions, not " + std::to_string(rank);
  });
  check.rank("a", call.a, rank);
  check.rank("b", call.b, rank);
  const int row = rank - 2, column = rank - 1;
  const GemmSizes sizes{.m = call.out.size(row),
                        .n = call.out.size(column),
                        .k = call.a.size(call.transpose_a ? row : column)};
  const std::int64_t a_rows = call.transpose_a ? sizes.k : sizes.m;
  const std::int64_t a_columns = call.transpose_a ? sizes.m : sizes.k;
  const std::int64_t b_rows = call.transpose_b ? sizes.n : sizes.k;
  const std::int64_t b_columns = call.transpose_b ? sizes.k : sizes.n;
  const bool narrow = call.a.dtype == DType::Bf16 || call.a.dtype == DType::F8E4m3;
  const auto outputs = narrow ? kNarrowResults : statistics_dtype(call.a.dtype);
  if (rank == 2) {
    check.strided("a", call.a, {a_rows, a_columns}, kGemmInputs);
    check.strided("b", call.b, {b_rows, b_columns}, {call.a.dtype});
    check.strided("out", call.out, {sizes.m, sizes.n}, outputs);
  } else {
    const std::int64_t batch = call.out.size(0);
    check.strided("a", call.a, {batch, a_rows, a_columns}, kGemmInputs);
    check.strided("b", call.b, {batch, b_rows, b_columns}, {call.a.dtype});
    check.strided("out", call.out, {batch, sizes.m, sizes.n}, outputs);
  }
  check_epilogue(check, call, sizes);
  check_fp8(check, call);
}

void check_call(const GroupedGemm& call) {
  const CallChecker check("grouped_gemm");
  check.rank("offsets", call.offsets, 1);
  const std::int64_t experts = call.offsets.size(0) - 1;
  check.require(experts >= 1, "\"offsets\" has one entry more than there are experts");
  check.tensor("offsets", call.offsets, {experts + 1}, kInt32);
  check.rank("a", call.a, 2);
  const std::int64_t rows = call.a.size(0);
  check.tensor("a", call.a, {rows, call.a.size(1)}, kFloats);
  const DType dtype = call.a.dtype;
  if (call.product == GroupedProduct::WeightGradient) {
    check.rank("b", call.b, 2);
    check.tensor("b", call.b, {rows, call.b.size(1)}, {dtype});
    check.tensor("out", call.out, {experts, call.a.size(1), call.b.size(1)},
                 statistics_dtype(dtype));
    return;
  }
  check.require(!call.accumulate, "only the weight gradient accumulates");
  check.rank("b", call.b, 3);
  const bool is_forward = call.product == GroupedProduct::Forward;
  const std::int64_t k = call.a.size(1), n = call.b.size(is_forward ? 1 : 2);
  if (is_forward)
    check.tensor("b", call.b, {experts, n, k}, {dtype});
  else
    check.tensor("b", call.b, {experts, k, n}, {dtype});
  check.tensor("out", call.out, {rows, n}, {dtype});
}

void check_call(const ColumnSum& call) {
  const CallChecker check("column_sum");
  check.rank("x", call.x, 2);
  check.strided("x", call.x, {call.x.size(0), call.x.size(1)}, kFloats);
  check.tensor("out", call.out, {call.x.size(1)}, statistics_dtype(call.x.dtype));
}

namespace {

void check_shape(const CallChecker& check, const AttentionShape& shape) {
  check.rank("query_offsets", shape.query_offsets, 1);
  const std::int64_t entries = shape.query_offsets.size(0);
  check.require(entries >= 1, "\"query_offsets\" has one entry more than there are sequences");
  check.tensor("query_offsets", shape.query_offsets, {entries}, kInt32);
  check.tensor("key_offsets", shape.key_offsets, {entries}, kInt32);
  check.require(shape.max_query_length >= 0 && shape.max_key_length >= 0,
                "the greatest lengths are not negative");
}

struct HeadSizes {
  std::int64_t queries = 0, keys = 0, heads = 0, kv_heads = 0, d = 0;
};

HeadSizes check_heads(const CallChecker& check, const ConstTensorView& query,
                      const ConstTensorView& key, const ConstTensorView& value) {
  check.rank("query", query, 3);
  check.rank("key", key, 3);
  const HeadSizes sizes{.queries = query.size(0),
                        .keys = key.size(0),
                        .heads = query.size(1),
                        .kv_heads = key.size(1),
                        .d = query.size(2)};
  check.strided("query", query, {sizes.queries, sizes.heads, sizes.d}, kFloats);
  check.strided("key", key, {sizes.keys, sizes.kv_heads, sizes.d}, {query.dtype});
  check.strided("value", value, {sizes.keys, sizes.kv_heads, sizes.d}, {query.dtype});
  check.require(sizes.kv_heads >= 1 && sizes.heads % sizes.kv_heads == 0, [&] {
    return std::to_string(sizes.heads) + " heads are no multiple of " +
           std::to_string(sizes.kv_heads) + " key/value heads";
  });
  return sizes;
}

}  // namespace

void check_call(const AttentionForward& call) {
  const CallChecker check("attention_forward");
  check_shape(check, call.shape);
  const HeadSizes sizes = check_heads(check, call.query, call.key, call.value);
  check.strided("out", call.out, {sizes.queries, sizes.heads, sizes.d}, {call.query.dtype});
  if (call.log_sum_exp.given())
    check.tensor("log_sum_exp", call.log_sum_exp, {sizes.heads, sizes.queries},
                 statistics_dtype(call.query.dtype));
}

void check_call(const AttentionBackward& call) {
  const CallChecker check("attention_backward");
  check_shape(check, call.shape);
  const HeadSizes sizes = check_heads(check, call.query, call.key, call.value);
  const DType dtype = call.query.dtype;
  check.strided("out", call.out, {sizes.queries, sizes.heads, sizes.d}, {dtype});
  check.strided("d_out", call.d_out, {sizes.queries, sizes.heads, sizes.d}, {dtype});
  check.strided("d_query", call.d_query, {sizes.queries, sizes.heads, sizes.d}, {dtype});
  check.strided("d_key", call.d_key, {sizes.keys, sizes.kv_heads, sizes.d}, {dtype});
  check.strided("d_value", call.d_value, {sizes.keys, sizes.kv_heads, sizes.d}, {dtype});
  check.tensor("log_sum_exp", call.log_sum_exp, {sizes.heads, sizes.queries},
               statistics_dtype(dtype));
}

void check_call(const AttentionJoin& call) {
  const CallChecker check("attention_join");
  check.rank("b", call.b, 3);
  const std::int64_t tokens = call.b.size(0), heads = call.b.size(1), d = call.b.size(2);
  const DType dtype = call.b.dtype, wide = *statistics_dtype(dtype).begin();
  check.strided("b", call.b, {tokens, heads, d}, kFloats);
  check.strided("a", call.a, {tokens, heads, d}, {dtype, wide});
  check.strided("out", call.out, {tokens, heads, d}, {dtype, wide});
  check.require(call.a_log_sum_exp.given() == call.b_log_sum_exp.given() &&
                    call.a_log_sum_exp.given() == call.log_sum_exp.given(),
                "log-sum-exps are given all three, or none");
  if (!call.log_sum_exp.given()) return;
  check.tensor("a_log_sum_exp", call.a_log_sum_exp, {heads, tokens}, {wide});
  check.tensor("b_log_sum_exp", call.b_log_sum_exp, {heads, tokens}, {wide});
  check.tensor("log_sum_exp", call.log_sum_exp, {heads, tokens}, {wide});
  check.require(call.log_sum_exp.data != call.a_log_sum_exp.data &&
                    call.log_sum_exp.data != call.b_log_sum_exp.data,
                "\"log_sum_exp\" has memory of its own");
}

namespace {

void check_cache(const CallChecker& check, const ConstTensorView& key_cache,
                 const ConstTensorView& value_cache, const ConstTensorView& block_table,
                 std::int64_t sequences, DType dtype) {
  check.rank("key_cache", key_cache, 4);
  check.tensor("key_cache", key_cache,
               {key_cache.size(0), key_cache.size(1), key_cache.size(2), key_cache.size(3)},
               {dtype});
  check.tensor("value_cache", value_cache,
               {key_cache.size(0), key_cache.size(1), key_cache.size(2), key_cache.size(3)},
               {dtype});
  check.rank("block_table", block_table, 2);
  check.tensor("block_table", block_table, {sequences, block_table.size(1)}, kInt32);
  check.require(key_cache.size(1) >= 1, "a block of the cache holds at least one token");
}

}  // namespace

void check_call(const PagedAppend& call) {
  const CallChecker check("paged_append");
  check.rank("key", call.key, 3);
  const std::int64_t sequences = call.key.size(0);
  check_cache(check, call.key_cache, call.value_cache, call.block_table, sequences, call.key.dtype);
  const std::int64_t kv_heads = call.key_cache.size(2), d = call.key_cache.size(3);
  check.strided("key", call.key, {sequences, kv_heads, d}, kFloats);
  check.strided("value", call.value, {sequences, kv_heads, d}, {call.key.dtype});
  check.tensor("positions", call.positions, {sequences}, kInt32);
}

void check_call(const PagedAttention& call) {
  const CallChecker check("paged_attention");
  check.rank("query", call.query, 3);
  const std::int64_t sequences = call.query.size(0), heads = call.query.size(1);
  check_cache(check, call.key_cache, call.value_cache, call.block_table, sequences,
              call.query.dtype);
  const std::int64_t kv_heads = call.key_cache.size(2), d = call.key_cache.size(3);
  check.strided("query", call.query, {sequences, heads, d}, kFloats);
  check.strided("out", call.out, {sequences, heads, d}, {call.query.dtype});
  check.tensor("lengths", call.lengths, {sequences}, kInt32);
  check.require(kv_heads >= 1 && heads % kv_heads == 0, [&] {
    return std::to_string(heads) + " heads are no multiple of " + std::to_string(kv_heads) +
           " key/value heads";
  });
  check.require(call.max_length <= call.block_table.size(1) * call.key_cache.size(1),
                "\"max_length\" is more than the block table can address");
}

void check_call(const Rope& call) {
  const CallChecker check("rope");
  check.rank("x", call.x, 3);
  const std::int64_t tokens = call.x.size(0), d = call.x.size(2);
  check.strided("x", call.x, {tokens, call.x.size(1), d}, kFloats);
  check.require(d % 2 == 0, "an odd head size cannot be rotated in pairs");
  check.rank("cosine_sine", call.cosine_sine, 2);
  check.tensor("cosine_sine", call.cosine_sine, {call.cosine_sine.size(0), d},
               statistics_dtype(call.x.dtype));
  check.tensor("positions", call.positions, {tokens}, kInt32);
}

void check_call(const RouterForward& call) {
  const CallChecker check("router_forward");
  check.rank("logits", call.logits, 2);
  check.rank("experts", call.experts, 2);
  const std::int64_t tokens = call.logits.size(0), experts = call.logits.size(1);
  const std::int64_t k = call.experts.size(1);
  check.tensor("logits", call.logits, {tokens, experts}, {DType::F32, DType::F64});
  check.tensor("probabilities", call.probabilities, {tokens, experts}, {call.logits.dtype});
  check.tensor("experts", call.experts, {tokens, k}, kInt32);
  check.tensor("weights", call.weights, {tokens, k}, {call.logits.dtype});
  check.require(k >= 1 && k <= experts, [&] {
    return "a token goes to " + std::to_string(k) + " of " + std::to_string(experts) + " experts";
  });
}

void check_call(const RouterBackward& call) {
  const CallChecker check("router_backward");
  check.rank("probabilities", call.probabilities, 2);
  check.rank("experts", call.experts, 2);
  const std::int64_t tokens = call.probabilities.size(0), experts = call.probabilities.size(1);
  const std::int64_t k = call.experts.size(1);
  check.tensor("probabilities", call.probabilities, {tokens, experts}, {DType::F32, DType::F64});
  const DType dtype = call.probabilities.dtype;
  check.tensor("experts", call.experts, {tokens, k}, kInt32);
  check.tensor("d_weights", call.d_weights, {tokens, k}, {dtype});
  check.tensor("d_logits", call.d_logits, {tokens, experts}, {dtype});
  if (call.d_probabilities.given())
    check.tensor("d_probabilities", call.d_probabilities, {tokens, experts}, {dtype});
}

void check_call(const MoeSort& call) {
  const CallChecker check("moe_sort");
  check.rank("experts", call.experts, 2);
  check.rank("offsets", call.offsets, 1);
  const std::int64_t tokens = call.experts.size(0), k = call.experts.size(1);
  check.tensor("experts", call.experts, {tokens, k}, kInt32);
  check.tensor("destination", call.destination, {tokens, k}, kInt32);
  check.tensor("offsets", call.offsets, {call.offsets.size(0)}, kInt32);
  check.require(call.offsets.size(0) >= 2, "\"offsets\" has one entry more than experts");
}

namespace {

struct RoutedSizes {
  std::int64_t tokens = 0, k = 0, h = 0;
};

void check_routed(const CallChecker& check, const RoutedSizes& sizes,
                  const ConstTensorView& destination, const ConstTensorView& weights, DType dtype) {
  check.tensor("destination", destination, {sizes.tokens, sizes.k}, kInt32);
  if (weights.given())
    check.tensor("weights", weights, {sizes.tokens, sizes.k}, statistics_dtype(dtype));
}

}  // namespace

void check_call(const MoePermute& call) {
  const CallChecker check("moe_permute");
  check.rank("x", call.x, 2);
  check.rank("destination", call.destination, 2);
  const RoutedSizes sizes{call.x.size(0), call.destination.size(1), call.x.size(1)};
  check.tensor("x", call.x, {sizes.tokens, sizes.h}, kFloats);
  check.tensor("out", call.out, {sizes.tokens * sizes.k, sizes.h}, {call.x.dtype});
  check_routed(check, sizes, call.destination, call.weights, call.x.dtype);
}

void check_call(const MoeCombine& call) {
  const CallChecker check("moe_combine");
  check.rank("out", call.out, 2);
  check.rank("destination", call.destination, 2);
  const RoutedSizes sizes{call.out.size(0), call.destination.size(1), call.out.size(1)};
  check.tensor("out", call.out, {sizes.tokens, sizes.h}, kFloats);
  check.tensor("x", call.x, {sizes.tokens * sizes.k, sizes.h}, {call.out.dtype});
  check_routed(check, sizes, call.destination, call.weights, call.out.dtype);
}

void check_call(const MoeWeightGradient& call) {
  const CallChecker check("moe_weight_gradient");
  check.rank("d_out", call.d_out, 2);
  check.rank("destination", call.destination, 2);
  const RoutedSizes sizes{call.d_out.size(0), call.destination.size(1), call.d_out.size(1)};
  check.tensor("d_out", call.d_out, {sizes.tokens, sizes.h}, kFloats);
  check.tensor("x", call.x, {sizes.tokens * sizes.k, sizes.h}, {call.d_out.dtype});
  check.require(call.d_weights.given(), "tensor \"d_weights\" is missing");
  check_routed(check, sizes, call.destination, call.d_weights, call.d_out.dtype);
}

}  // namespace rehearse
