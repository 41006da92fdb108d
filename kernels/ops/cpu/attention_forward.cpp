#include <cmath>
#include <limits>

#include "kernels/ops/cpu/attention.h"
#include "kernels/ops/cpu/cpu_operators.h"

namespace rehearse {

SequenceSpan sequence_span(const AttentionShape& shape, std::int64_t sequence,
                           std::int64_t query_tokens, std::int64_t key_tokens) {
  const auto* query = elements_of<std::int32_t>(shape.query_offsets) + sequence;
  const auto* key = elements_of<std::int32_t>(shape.key_offsets) + sequence;
  const bool inside = query[0] >= 0 && query[0] <= query[1] && query[1] <= query_tokens &&
                      key[0] >= 0 && key[0] <= key[1] && key[1] <= key_tokens;
  if (!inside || query[1] - query[0] > shape.max_query_length ||
      key[1] - key[0] > shape.max_key_length)
    throw OperatorError("attention: the offsets of sequence " + std::to_string(sequence) +
                        " leave the tensors, or exceed the greatest length");
  return {query[0], query[1] - query[0], key[0], key[1] - key[0], shape.causal};
}

namespace {

constexpr std::int64_t kBlock = 64;  // queries worked on together; their scores stay in cache

/// Turns a row of scores into probabilities; returns its log-sum-exp.
double softmax_row(double* scores, std::int64_t visible, std::int64_t width) {
  double maximum = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < visible; ++j) maximum = std::max(maximum, scores[j]);
  double sum = 0;
  for (std::int64_t j = 0; j < visible; ++j) sum += scores[j] = std::exp(scores[j] - maximum);
  for (std::int64_t j = 0; j < visible; ++j) scores[j] /= sum;
  std::fill(scores + visible, scores + width, 0.0);
  return visible == 0 ? maximum : maximum + std::log(sum);
}

template <typename T, typename Wide>
void forward_head(const AttentionForward& call, const SequenceSpan& span, std::int64_t head) {
  const std::int64_t d = call.query.size(2);
  const std::int64_t kv_head = head / (call.query.size(1) / call.key.size(1));
  const auto key = head_rows<T>(call.key, kv_head, span.first_key, span.keys);
  const auto key_transposed = transposed(key, span.keys, d);
  const auto values = head_rows<T>(call.value, kv_head, span.first_key, span.keys);
  for (std::int64_t first = 0; first < span.queries; first += kBlock) {
    const std::int64_t count = std::min(kBlock, span.queries - first);
    const std::int64_t width = span.visible(first + count - 1);
    const auto query =
        head_rows<T>(call.query, head, span.first_query + first, count, call.shape.scale);
    std::vector<double> scores(static_cast<std::size_t>(count * width));
    multiply_add({scores.data(), width}, {query.data(), d}, {key_transposed.data(), span.keys},
                 {.m = count, .n = width, .k = d});
    for (std::int64_t i = 0; i < count; ++i) {
      const double lse = softmax_row(scores.data() + i * width, span.visible(first + i), width);
      if (call.log_sum_exp.given())
        store(elements_of<Wide>(
                  call.log_sum_exp)[head * call.query.size(0) + span.first_query + first + i],
              lse);
    }
    std::vector<double> out(static_cast<std::size_t>(count * d));
    multiply_add({out.data(), d}, {scores.data(), width}, {values.data(), d},
                 {.m = count, .n = d, .k = width});
    store_head_rows<T>(call.out, head, span.first_query + first, out);
  }
}

}  // namespace

void compute(const AttentionForward& call, ThreadTeam& team) {
  const std::int64_t sequences = call.shape.query_offsets.size(0) - 1;
  const std::int64_t heads = call.query.size(1);
  with_float_type(call.query.dtype, [&](auto tag) {
    using T = decltype(tag);
    using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
    team.for_each_range(sequences * heads, 1, [&](auto begin, auto end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const SequenceSpan span =
            sequence_span(call.shape, task / heads, call.query.size(0), call.key.size(0));
        forward_head<T, Wide>(call, span, task % heads);
      }
    });
  });
}

}  // namespace rehearse
