// Tasks of attention: quasi-random lengths, odd ones included, heads of several counts and sizes;
// the lengths that are published; packed sequences of unequal lengths; decoding from a paged cache.
#include <algorithm>
#include <cmath>

#include "kernels/profiler/profile_task.h"
#include "kernels/profiler/statistics.h"

namespace rehearse {
namespace {

struct HeadCounts {
  std::int64_t heads, kv_heads;
};

/// A packed batch of sequences.
struct Packed {
  std::vector<std::int64_t> lengths;
  HeadCounts heads;
  std::int64_t d;
  bool causal;

  std::int64_t tokens() const {
    std::int64_t sum = 0;
    for (const std::int64_t length : lengths) sum += length;
    return sum;
  }
  /// FLOPs of the backward on the whole square.
  double flops() const {
    double squares = 0;
    for (const std::int64_t length : lengths) squares += static_cast<double>(length * length);
    return 10 * squares * static_cast<double>(heads.heads * d);
  }
};

/// Described as `op` in both passes: one length of all sequences, or the sum of several.
Operator described(const Packed& at, DType dtype, Pass pass) {
  const std::int64_t longest = *std::max_element(at.lengths.begin(), at.lengths.end());
  const auto count = static_cast<std::int64_t>(at.lengths.size());
  Operator op = attention(pass, precision_of(dtype), count, longest, longest, at.heads.heads,
                          at.heads.kv_heads, at.d, at.causal);
  const double full = static_cast<double>(count * longest);
  op.flops = at.flops() * (pass == Pass::Forward ? 0.4 : 1) * (at.causal ? 0.5 : 1);
  op.bytes *= static_cast<double>(at.tokens()) / full;
  return op;
}

TaskTensor offsets_of(const Packed& at) {
  std::vector<std::int32_t> sums{0};
  for (const std::int64_t length : at.lengths)
    sums.push_back(sums.back() + static_cast<std::int32_t>(length));
  const auto count = static_cast<std::int64_t>(sums.size());
  return {.dtype = DType::I32,
          .shape = {count},
          .fill = TaskTensor::Fill::Listed,
          .listed = [sums](std::int64_t i) { return sums[static_cast<std::size_t>(i)]; }};
}

void add_attention(std::vector<ProfileTask>& tasks, DType dtype, const char* label,
                   const Packed& at) {
  const std::int64_t tokens = at.tokens();
  const TaskTensor query{.dtype = dtype, .shape = {tokens, at.heads.heads, at.d}};
  const TaskTensor key{.dtype = dtype, .shape = {tokens, at.heads.kv_heads, at.d}};
  const TaskTensor lse{.dtype = DType::F32, .shape = {at.heads.heads, tokens}};
  const TaskTensor offsets = offsets_of(at);
  const Operator forward = described(at, dtype, Pass::Forward);
  const auto shape_of = [length = forward.query_len, causal = at.causal,
                         scale =
                             1 / std::sqrt(static_cast<float>(at.d))](const TensorView& places) {
    return AttentionShape{.query_offsets = places,
                          .key_offsets = places,
                          .max_query_length = length,
                          .max_key_length = length,
                          .causal = causal,
                          .scale = scale};
  };
  tasks.push_back({.op = forward,
                   .label = label,
                   .dtype = dtype,
                   .tensors = {query, key, key, query, lse, offsets},
                   .call = [=](const auto& t) -> OperatorCall {
                     return AttentionForward{.query = t[0],
                                             .key = t[1],
                                             .value = t[2],
                                             .out = t[3],
                                             .log_sum_exp = t[4],
                                             .shape = shape_of(t[5])};
                   }});
  // Positive log-sum-exps far above the scores keep the weights finite and the time the same.
  TaskTensor saved = lse;
  saved.fill = TaskTensor::Fill::Positive;
  tasks.push_back({.op = described(at, dtype, Pass::InputGradient),
                   .label = label,
                   .dtype = dtype,
                   .tensors = {query, query, key, key, query, saved, offsets, query, key, key},
                   .call = [=](const auto& t) -> OperatorCall {
                     return AttentionBackward{.d_out = t[0],
                                              .query = t[1],
                                              .key = t[2],
                                              .value = t[3],
                                              .out = t[4],
                                              .log_sum_exp = t[5],
                                              .d_query = t[7],
                                              .d_key = t[8],
                                              .d_value = t[9],
                                              .shape = shape_of(t[6])};
                   }});
}

/// The counts of GPT-2, Llama 2 and 3, Qwen 2.5, and what tensor ranks leave of them.
constexpr HeadCounts kHeads[] = {{12, 12}, {32, 8}, {25, 25}, {8, 1},  {32, 32},
                                 {64, 8},  {16, 2}, {28, 4},  {40, 40}};

/// fp32 attention is a reference on GPUs, not a fast kernel.
double limit_of(const ProfileScope& scope, DType dtype) {
  return dtype == DType::F32 ? std::min(scope.most_plain_flops, 2e10) : scope.most_plain_flops;
}

/// As many equal sequences as the longest length has tokens, so that short ones fill the GPU too.
void add_equal(std::vector<ProfileTask>& tasks, const ProfileScope& scope, DType dtype,
               std::int64_t length, HeadCounts heads, std::int64_t d, bool causal) {
  const double limit = limit_of(scope, dtype);
  Packed at{.lengths = {length}, .heads = heads, .d = d, .causal = causal};
  if (at.flops() > limit) return;
  const std::int64_t batch = std::min(scope.sequence_lengths.back() / length,
                                      static_cast<std::int64_t>(limit / at.flops()));
  at.lengths.resize(static_cast<std::size_t>(std::max<std::int64_t>(1, batch)), length);
  add_attention(tasks, dtype, "attention", at);
}

/// Eight sequences of unequal lengths, or as many as the scope takes.
void add_unequal(std::vector<ProfileTask>& tasks, const ProfileScope& scope, DType dtype,
                 std::int64_t d) {
  Packed at{.lengths = {}, .heads = {32, 8}, .d = d, .causal = true};
  const std::int64_t least = scope.sequence_lengths.front() / 2 + 1;
  for (int i = 0; i < 8; ++i)
    at.lengths.push_back(
        log_uniform(quasi_random(i, 0), least, scope.sequence_lengths.back() / 2, 1));
  while (at.lengths.size() > 2 && at.flops() > limit_of(scope, dtype)) at.lengths.pop_back();
  add_attention(tasks, dtype, "attention_varlen", at);
}

/// One new token of each sequence against `length` cached ones, in blocks of 16 tokens that lie
/// scattered.
void add_decode(std::vector<ProfileTask>& tasks, DType dtype, std::int64_t sequences,
                std::int64_t length, std::int64_t d) {
  using Fill = TaskTensor::Fill;
  constexpr std::int64_t kBlock = 16, kHeadCount = 32, kKvHeads = 8, kStride = 7919;
  const std::int64_t blocks = (length + kBlock - 1) / kBlock, all = sequences * blocks;
  const TaskTensor cache{.dtype = dtype, .shape = {all, kBlock, kKvHeads, d}};
  // 7919 is a prime: every block is some sequence's, once, unless it divides their number.
  const std::int64_t stride = all % kStride == 0 ? kStride - 12 : kStride;
  const TaskTensor table{.dtype = DType::I32,
                         .shape = {sequences, blocks},
                         .fill = Fill::Listed,
                         .listed = [all, stride](std::int64_t i) {
                           return static_cast<std::int32_t>(i * stride % all);
                         }};
  const auto constant = [&](std::int64_t value) {
    return TaskTensor{.dtype = DType::I32,
                      .shape = {sequences},
                      .fill = Fill::Listed,
                      .listed = [value](std::int64_t) { return static_cast<std::int32_t>(value); }};
  };
  const TaskTensor query{.dtype = dtype, .shape = {sequences, kHeadCount, d}};
  const TaskTensor fresh{.dtype = dtype, .shape = {sequences, kKvHeads, d}};
  const double element = static_cast<double>(element_bytes(dtype));
  const double cached = 2 * element * static_cast<double>(sequences * length * kKvHeads * d);
  const double queries = 2 * element * static_cast<double>(sequences * kHeadCount * d);
  const auto add = [&](const char* label, double bytes, std::vector<TaskTensor> tensors,
                       auto call) {
    tasks.push_back({.op = memory_operator(OperatorName::Attention, Pass::Forward, bytes),
                     .label = label,
                     .dtype = dtype,
                     .tensors = std::move(tensors),
                     .call = call});
  };
  add("paged_attention", cached + queries, {query, cache, cache, table, constant(length), query},
      [length, d](const auto& t) -> OperatorCall {
        return PagedAttention{.query = t[0],
                              .key_cache = t[1],
                              .value_cache = t[2],
                              .block_table = t[3],
                              .lengths = t[4],
                              .out = t[5],
                              .max_length = length,
                              .scale = 1 / std::sqrt(static_cast<float>(d))};
      });
  const double appended = 4 * element * static_cast<double>(sequences * kKvHeads * d);
  add("paged_append", appended, {fresh, fresh, cache, cache, table, constant(length - 1)},
      [](const auto& t) -> OperatorCall {
        return PagedAppend{.key = t[0],
                           .value = t[1],
                           .key_cache = t[2],
                           .value_cache = t[3],
                           .block_table = t[4],
                           .positions = t[5]};
      });
}

void add_decodes(std::vector<ProfileTask>& tasks, const ProfileScope& scope, DType dtype) {
  for (const std::int64_t d : scope.head_sizes)
    for (const std::int64_t sequences : {1, 16, 128})
      for (const std::int64_t length :
           {scope.sequence_lengths.front() + 1, scope.sequence_lengths.back()})
        if (sequences * (length + 16) * 8 * d <= scope.most_elements)
          add_decode(tasks, dtype, sequences, length, d);
}

}  // namespace

std::vector<ProfileTask> attention_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  const std::int64_t shortest = scope.sequence_lengths.front();
  const std::int64_t longest = scope.sequence_lengths.back();
  for (int i = 0; i < scope.attentions; ++i) {
    const auto heads = static_cast<std::size_t>(quasi_random(i, 1) * std::size(kHeads));
    const std::int64_t d = scope.head_sizes[static_cast<std::size_t>(i) % scope.head_sizes.size()];
    // Training is causal; of other masks a few will do.
    add_equal(tasks, scope, dtype, log_uniform(quasi_random(i, 0), shortest, longest, 1),
              kHeads[heads], d, i % 4 != 3);
  }
  for (const std::int64_t d : scope.head_sizes) {
    for (const std::int64_t length : scope.sequence_lengths)
      add_equal(tasks, scope, dtype, length, {32, 8}, d, true);
    add_unequal(tasks, scope, dtype, d);
  }
  add_decodes(tasks, scope, dtype);
  return tasks;
}

}  // namespace rehearse
