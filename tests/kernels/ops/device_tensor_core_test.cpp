#include <algorithm>

#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

struct Packed {
  std::vector<std::int32_t> query_lengths, key_lengths;
  std::int64_t heads, kv_heads, d;
  bool causal;
};

HostTensor offsets_of(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> sums{0};
  for (const std::int32_t length : lengths) sums.push_back(sums.back() + length);
  return int_tensor(sums);
}

AttentionShape shape_of(const Packed& packed, const TensorView& query_offsets,
                        const TensorView& key_offsets) {
  const auto longest = [](const std::vector<std::int32_t>& lengths) {
    return static_cast<std::int64_t>(*std::max_element(lengths.begin(), lengths.end()));
  };
  return {.query_offsets = query_offsets,
          .key_offsets = key_offsets,
          .max_query_length = longest(packed.query_lengths),
          .max_key_length = longest(packed.key_lengths),
          .causal = packed.causal,
          .scale = 1 / std::sqrt(static_cast<float>(packed.d))};
}

/// Forward and backward of one attention, compared on the device.
void check_attention(const Packed& packed, DType dtype, Random& random) {
  const HostTensor query_offsets = offsets_of(packed.query_lengths),
                   key_offsets = offsets_of(packed.key_lengths);
  const auto queries = static_cast<std::int64_t>(query_offsets.at(query_offsets.elements() - 1));
  const auto keys = static_cast<std::int64_t>(key_offsets.at(key_offsets.elements() - 1));
  const TensorShape query_shape{queries, packed.heads, packed.d},
      key_shape{keys, packed.kv_heads, packed.d};
  const HostTensor query = random_tensor(random, dtype, query_shape),
                   key = random_tensor(random, dtype, key_shape);
  const HostTensor value = random_tensor(random, dtype, key_shape),
                   lse(DType::F32, {packed.heads, queries});
  DeviceCase forward{.tensors = {query, key, value, query_offsets, key_offsets, query, lse},
                     .outputs = {5, 6},
                     .call = [&](const auto& t) {
                       return AttentionForward{.query = t[0],
                                               .key = t[1],
                                               .value = t[2],
                                               .out = t[5],
                                               .log_sum_exp = t[6],
                                               .shape = shape_of(packed, t[3], t[4])};
                     }};
  forward = check_on_device(forward);
  check_on_device(
      {.tensors = {random_tensor(random, dtype, query_shape), query, key, value, forward.tensors[5],
                   forward.tensors[6], query_offsets, key_offsets, query, key, key},
       .outputs = {8, 9, 10},
       .call = [&](const auto& t) {
         return AttentionBackward{.d_out = t[0],
                                  .query = t[1],
                                  .key = t[2],
                                  .value = t[3],
                                  .out = t[4],
                                  .log_sum_exp = t[5],
                                  .d_query = t[8],
                                  .d_key = t[9],
                                  .d_value = t[10],
                                  .shape = shape_of(packed, t[6], t[7])};
       }});
}

}  // namespace

TEST_CASE("device: attention in bf16 agrees with the CPU for every head size and mask") {
  const std::int64_t d = GENERATE(as<std::int64_t>{}, 64, 96, 128);
  const bool causal = GENERATE(true, false);
  CAPTURE(d, causal);
  Random random(120);
  check_attention({.query_lengths = {140, 1, 20},
                   .key_lengths = {140, 1, 20},
                   .heads = 2,
                   .kv_heads = 1,
                   .d = d,
                   .causal = causal},
                  DType::Bf16, random);
  // More keys than queries, and a sequence whose first queries see nothing.
  check_attention({.query_lengths = {20, 9},
                   .key_lengths = {83, 4},
                   .heads = 2,
                   .kv_heads = 2,
                   .d = d,
                   .causal = causal},
                  DType::Bf16, random);
  // Queries without keys, and keys without queries: what a ring's blocks are cut into.
  check_attention({.query_lengths = {20, 0, 9},
                   .key_lengths = {33, 40, 0},
                   .heads = 2,
                   .kv_heads = 1,
                   .d = d,
                   .causal = causal},
                  DType::Bf16, random);
}

TEST_CASE("device: attention takes types and head sizes that tensor cores do not") {
  Random random(121);
  const bool causal = GENERATE(true, false);
  check_attention({.query_lengths = {19, 6},
                   .key_lengths = {19, 6},
                   .heads = 4,
                   .kv_heads = 2,
                   .d = 64,
                   .causal = causal},
                  DType::F32, random);
  check_attention({.query_lengths = {18},
                   .key_lengths = {25},
                   .heads = 3,
                   .kv_heads = 3,
                   .d = 50,
                   .causal = causal},
                  DType::Bf16, random);
}

TEST_CASE("device: long causal attention agrees with the CPU") {
  if (!device_is_fast()) {
    WARN("SKIPPED: only on a real device");
    return;
  }
  Random random(122);
  check_attention({.query_lengths = {1000, 517},
                   .key_lengths = {1000, 517},
                   .heads = 8,
                   .kv_heads = 2,
                   .d = 128,
                   .causal = true},
                  DType::Bf16, random);
}

TEST_CASE("device: attention reads heads out of a fused projection") {
  Random random(123);
  const HostTensor fused = random_tensor(random, DType::Bf16, {40, 8, 64}),
                   offsets = int_tensor({0, 40});
  const HostTensor out(DType::Bf16, {40, 4, 64});
  check_on_device({.tensors = {fused, offsets, out}, .outputs = {2}, .call = [](const auto& t) {
                     return AttentionForward{.query = slice_columns(t[0], 0, 4),
                                             .key = slice_columns(t[0], 4, 2),
                                             .value = slice_columns(t[0], 6, 2),
                                             .out = t[2],
                                             .shape = {.query_offsets = t[1],
                                                       .key_offsets = t[1],
                                                       .max_query_length = 40,
                                                       .max_key_length = 40,
                                                       .scale = 0.125f}};
                   }});
}

TEST_CASE("device: decode over the paged cache agrees with the CPU") {
  const DType dtype = GENERATE(DType::Bf16, DType::F32);
  const std::int64_t d = GENERATE(as<std::int64_t>{}, 64, 96, 128, 40);
  const std::int64_t heads = GENERATE(as<std::int64_t>{}, 2, 6, 40), kv_heads = 2;
  if (!device_is_fast() && (heads == 40) != (d == 64)) return;
  CAPTURE(dtype_name(dtype), d, heads);
  Random random(124);
  const std::int64_t sequences = 3, block = 16, columns = 40, blocks = 100;
  const HostTensor cache = random_tensor(random, dtype, {blocks, block, kv_heads, d}),
                   values = random_tensor(random, dtype, {blocks, block, kv_heads, d});
  const HostTensor table = random_ints(random, {sequences, columns}, static_cast<int>(blocks)),
                   lengths = int_tensor({1, 600, 77});
  const HostTensor query = random_tensor(random, dtype, {sequences, heads, d});
  check_on_device({.tensors = {query, cache, values, table, lengths, query},
                   .outputs = {5},
                   .call = [&](const auto& t) {
                     return PagedAttention{.query = t[0],
                                           .key_cache = t[1],
                                           .value_cache = t[2],
                                           .block_table = t[3],
                                           .lengths = t[4],
                                           .out = t[5],
                                           .max_length = 600,
                                           .scale = 1 / std::sqrt(static_cast<float>(d))};
                   }});
  const HostTensor row = random_tensor(random, dtype, {sequences, kv_heads, d});
  const HostTensor distinct = int_tensor({0, 1, 2, 3, 4, 5}, {3, 2}),
                   positions = int_tensor({0, 17, 31});
  check_on_device({.tensors = {row, row, cache, values, distinct, positions},
                   .outputs = {2, 3},
                   .kept = {2, 3},
                   .call = [](const auto& t) {
                     return PagedAppend{.key = t[0],
                                        .value = t[1],
                                        .key_cache = t[2],
                                        .value_cache = t[3],
                                        .block_table = t[4],
                                        .positions = t[5]};
                   }});
}

TEST_CASE("device: grouped products agree with the CPU") {
  const DType dtype = GENERATE(DType::Bf16, DType::F32);
  const std::int64_t in = GENERATE(as<std::int64_t>{}, 40, 136, 37),
                     out = GENERATE(as<std::int64_t>{}, 24, 200);
  CAPTURE(dtype_name(dtype), in, out);
  Random random(125);
  const std::int64_t rows = 190, experts = 5;
  const HostTensor offsets = int_tensor({0, 3, 3, 140, 177, 190});
  const HostTensor x = random_tensor(random, dtype, {rows, in}),
                   dy = random_tensor(random, dtype, {rows, out});
  const HostTensor w = random_tensor(random, dtype, {experts, out, in});
  check_on_device({.tensors = {x, w, dy, offsets}, .outputs = {2}, .call = [](const auto& t) {
                     return GroupedGemm{.product = GroupedProduct::Forward,
                                        .a = t[0],
                                        .b = t[1],
                                        .out = t[2],
                                        .offsets = t[3]};
                   }});
  check_on_device({.tensors = {dy, w, x, offsets}, .outputs = {2}, .call = [](const auto& t) {
                     return GroupedGemm{.product = GroupedProduct::InputGradient,
                                        .a = t[0],
                                        .b = t[1],
                                        .out = t[2],
                                        .offsets = t[3]};
                   }});
  const bool accumulate = GENERATE(false, true);
  check_on_device(
      {.tensors = {dy, x, random_tensor(random, DType::F32, {experts, out, in}), offsets},
       .outputs = {2},
       .kept = accumulate ? std::vector<std::size_t>{2} : std::vector<std::size_t>{},
       .call = [&](const auto& t) {
         return GroupedGemm{.product = GroupedProduct::WeightGradient,
                            .a = t[0],
                            .b = t[1],
                            .out = t[2],
                            .offsets = t[3],
                            .accumulate = accumulate};
       }});
}
