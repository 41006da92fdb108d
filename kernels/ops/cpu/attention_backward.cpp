#include <cmath>

#include "kernels/ops/cpu/attention.h"
#include "kernels/ops/cpu/cpu_operators.h"

namespace rehearse {
namespace {

constexpr std::int64_t kBlock = 64;

/// A key/value head's keys, values and their gradients, which all its query heads add to.
struct KeySide {
  std::vector<double> key, key_transposed, value_transposed, d_key, d_value;
};

/// p = exp(s − lse), ds = p · (dp − δ) with δ = d_out · out (FlashAttention-2, Dao 2023, arXiv
/// 2307.08691, section 3.1). `scores` and `d_probabilities` become p and ds.
template <typename Wide>
void probabilities_and_slopes(const Wide* lse, const std::vector<double>& delta,
                              const SequenceSpan& span, std::int64_t first, std::int64_t width,
                              std::vector<double>& scores, std::vector<double>& d_probabilities) {
  for (std::size_t i = 0; i < delta.size(); ++i) {
    const std::int64_t visible = span.visible(first + static_cast<std::int64_t>(i));
    double* p = scores.data() + static_cast<std::int64_t>(i) * width;
    double* ds = d_probabilities.data() + static_cast<std::int64_t>(i) * width;
    for (std::int64_t j = 0; j < visible; ++j) {
      p[j] = std::exp(p[j] - static_cast<double>(lse[i]));
      ds[j] = p[j] * (ds[j] - delta[i]);
    }
    std::fill(p + visible, p + width, 0.0);
    std::fill(ds + visible, ds + width, 0.0);
  }
}

std::vector<double> row_products(const std::vector<double>& a, const std::vector<double>& b,
                                 std::int64_t d) {
  std::vector<double> sums(a.size() / static_cast<std::size_t>(d));
  for (std::size_t i = 0; i < a.size(); ++i) sums[i / static_cast<std::size_t>(d)] += a[i] * b[i];
  return sums;
}

/// One block of queries of one head: writes d_query, adds to the key side.
template <typename T, typename Wide>
void backward_block(const AttentionBackward& call, const SequenceSpan& span, std::int64_t head,
                    std::int64_t first, std::int64_t count, KeySide& side) {
  const std::int64_t d = call.query.size(2);
  const std::int64_t row = span.first_query + first;
  const std::int64_t width = span.visible(first + count - 1);
  const double scale = call.shape.scale;
  const auto query = head_rows<T>(call.query, head, row, count, scale);
  const auto out = head_rows<T>(call.out, head, row, count);
  const auto d_out = head_rows<T>(call.d_out, head, row, count);
  const auto delta = row_products(d_out, out, d);
  const ProductSizes square{.m = count, .n = width, .k = d};
  std::vector<double> scores(static_cast<std::size_t>(count * width)), slopes(scores.size());
  multiply_add({scores.data(), width}, {query.data(), d}, {side.key_transposed.data(), span.keys},
               square);
  multiply_add({slopes.data(), width}, {d_out.data(), d}, {side.value_transposed.data(), span.keys},
               square);
  const Wide* lse = elements_of<Wide>(call.log_sum_exp) + head * call.query.size(0) + row;
  probabilities_and_slopes(lse, delta, span, first, width, scores, slopes);

  std::vector<double> d_query(static_cast<std::size_t>(count * d));
  multiply_add({d_query.data(), d}, {slopes.data(), width}, {side.key.data(), d},
               {.m = count, .n = d, .k = width});
  store_head_rows<T>(call.d_query, head, row, d_query, scale);
  const auto p_transposed = transposed(scores, count, width);
  const auto ds_transposed = transposed(slopes, count, width);
  const ProductSizes gather{.m = width, .n = d, .k = count};
  multiply_add({side.d_value.data(), d}, {p_transposed.data(), count}, {d_out.data(), d}, gather);
  // `query` carries the scale already.
  multiply_add({side.d_key.data(), d}, {ds_transposed.data(), count}, {query.data(), d}, gather);
}

template <typename T, typename Wide>
void backward_kv_head(const AttentionBackward& call, const SequenceSpan& span,
                      std::int64_t kv_head) {
  const std::int64_t d = call.query.size(2), group = call.query.size(1) / call.key.size(1);
  KeySide side;
  side.key = head_rows<T>(call.key, kv_head, span.first_key, span.keys);
  side.key_transposed = transposed(side.key, span.keys, d);
  side.value_transposed =
      transposed(head_rows<T>(call.value, kv_head, span.first_key, span.keys), span.keys, d);
  side.d_key.resize(side.key.size());
  side.d_value.resize(side.key.size());
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (std::int64_t first = 0; first < span.queries; first += kBlock)
      backward_block<T, Wide>(call, span, head, first, std::min(kBlock, span.queries - first),
                              side);
  store_head_rows<T>(call.d_key, kv_head, span.first_key, side.d_key);
  store_head_rows<T>(call.d_value, kv_head, span.first_key, side.d_value);
}

}  // namespace

void compute(const AttentionBackward& call, ThreadTeam& team) {
  const std::int64_t sequences = call.shape.query_offsets.size(0) - 1;
  const std::int64_t kv_heads = call.key.size(1);
  with_float_type(call.query.dtype, [&](auto tag) {
    using T = decltype(tag);
    using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
    team.for_each_range(sequences * kv_heads, 1, [&](auto begin, auto end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const SequenceSpan span =
            sequence_span(call.shape, task / kv_heads, call.query.size(0), call.key.size(0));
        backward_kv_head<T, Wide>(call, span, task % kv_heads);
      }
    });
  });
}

}  // namespace rehearse
