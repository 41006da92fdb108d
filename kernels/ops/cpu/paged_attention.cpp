#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

/// Row of the cache, in tokens, that holds a position of a sequence.
std::int64_t cache_row(const ConstTensorView& block_table, const ConstTensorView& cache,
                       std::int64_t sequence, std::int64_t position) {
  const std::int64_t block_size = cache.size(1), columns = block_table.size(1);
  const std::int64_t column = position / block_size;
  const std::int64_t block =
      column < columns ? elements_of<std::int32_t>(block_table)[sequence * columns + column] : -1;
  if (position < 0 || block < 0 || block >= cache.size(0))
    throw OperatorError("paged cache: position " + std::to_string(position) + " of sequence " +
                        std::to_string(sequence) + " has no block");
  return block * block_size + position % block_size;
}

template <typename T>
void decode_head(const PagedAttention& call, std::int64_t sequence, std::int64_t head) {
  const std::int64_t heads = call.query.size(1), d = call.query.size(2);
  const std::int64_t kv_heads = call.key_cache.size(2), kv_head = head / (heads / kv_heads);
  const std::int64_t length = elements_of<std::int32_t>(call.lengths)[sequence];
  if (length < 0 || length > call.max_length)
    throw OperatorError("paged_attention: sequence " + std::to_string(sequence) + " holds " +
                        std::to_string(length) + " tokens, more than the greatest length");
  const T* query = elements_of<T>(call.query) + sequence * call.query.shape.stride + head * d;
  const auto cached = [&](const ConstTensorView& cache, std::int64_t position) {
    const std::int64_t row = cache_row(call.block_table, cache, sequence, position);
    return elements_of<T>(cache) + (row * kv_heads + kv_head) * d;
  };
  std::vector<double> scores(static_cast<std::size_t>(length)), out(static_cast<std::size_t>(d));
  double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
  for (std::int64_t p = 0; p < length; ++p) {
    const T* key = cached(call.key_cache, p);
    double score = 0;
    for (std::int64_t j = 0; j < d; ++j)
      score += static_cast<double>(value(query[j])) * value(key[j]);
    scores[static_cast<std::size_t>(p)] = score * call.scale;
    maximum = std::max(maximum, score * call.scale);
  }
  for (std::int64_t p = 0; p < length; ++p) {
    const double weight = std::exp(scores[static_cast<std::size_t>(p)] - maximum);
    const T* values = cached(call.value_cache, p);
    sum += weight;
    for (std::int64_t j = 0; j < d; ++j)
      out[static_cast<std::size_t>(j)] += weight * value(values[j]);
  }
  T* to = elements_of<T>(call.out) + sequence * call.out.shape.stride + head * d;
  for (std::int64_t j = 0; j < d; ++j)
    store(to[j], length == 0 ? 0.0 : out[static_cast<std::size_t>(j)] / sum);
}

}  // namespace

void compute(const PagedAttention& call, ThreadTeam& team) {
  const std::int64_t heads = call.query.size(1);
  with_float_type(call.query.dtype, [&](auto tag) {
    team.for_each_range(call.query.size(0) * heads, 1, [&](auto begin, auto end) {
      for (std::int64_t task = begin; task < end; ++task)
        decode_head<decltype(tag)>(call, task / heads, task % heads);
    });
  });
}

void compute(const PagedAppend& call, ThreadTeam& team) {
  const std::int64_t row_elements = call.key.size(1) * call.key.size(2);
  with_float_type(call.key.dtype, [&](auto tag) {
    using T = decltype(tag);
    team.for_each_range(call.key.size(0), 64, [&](auto begin, auto end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = cache_row(call.block_table, call.key_cache, i,
                                           elements_of<std::int32_t>(call.positions)[i]);
        std::copy_n(elements_of<T>(call.key) + i * call.key.shape.stride, row_elements,
                    elements_of<T>(call.key_cache) + row * row_elements);
        std::copy_n(elements_of<T>(call.value) + i * call.value.shape.stride, row_elements,
                    elements_of<T>(call.value_cache) + row * row_elements);
      }
    });
  });
}

}  // namespace rehearse
