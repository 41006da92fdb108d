#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/ops/cpu/dense_product.h"
#include "kernels/ops/cpu/elements.h"
#include "kernels/ops/operator_call.h"

namespace rehearse {

/// One sequence of a packed batch: where its tokens lie, and which keys a query sees.
struct SequenceSpan {
  std::int64_t first_query = 0, queries = 0, first_key = 0, keys = 0;
  bool causal = false;

  /// Keys seen by query i: the mask is aligned to the last query and the last key.
  std::int64_t visible(std::int64_t query) const {
    if (!causal) return keys;
    return std::clamp<std::int64_t>(query + 1 + keys - queries, 0, keys);
  }
};

/// Reads a sequence from the offsets. Throws OperatorError where they leave the tensors.
SequenceSpan sequence_span(const AttentionShape& shape, std::int64_t sequence,
                           std::int64_t query_tokens, std::int64_t key_tokens);

/// Rows [first, first + count) of one head of a (tokens, heads, d) tensor, as doubles (count, d).
template <typename T>
std::vector<double> head_rows(const ConstTensorView& tensor, std::int64_t head, std::int64_t first,
                              std::int64_t count, double factor = 1) {
  const std::int64_t d = tensor.size(2);
  std::vector<double> rows(static_cast<std::size_t>(count * d));
  const T* from = elements_of<T>(tensor) + first * tensor.shape.stride + head * d;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t j = 0; j < d; ++j)
      rows[static_cast<std::size_t>(i * d + j)] = factor * value(from[i * tensor.shape.stride + j]);
  return rows;
}

template <typename T>
void store_head_rows(const TensorView& tensor, std::int64_t head, std::int64_t first,
                     const std::vector<double>& rows, double factor = 1) {
  const std::int64_t d = tensor.size(2);
  const auto count = static_cast<std::int64_t>(rows.size()) / d;
  T* to = elements_of<T>(tensor) + first * tensor.shape.stride + head * d;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t j = 0; j < d; ++j)
      store(to[i * tensor.shape.stride + j], factor * rows[static_cast<std::size_t>(i * d + j)]);
}

inline std::vector<double> transposed(const std::vector<double>& block, std::int64_t rows,
                                      std::int64_t columns) {
  std::vector<double> result(block.size());
  transpose({result.data(), rows}, {block.data(), columns}, rows, columns);
  return result;
}

}  // namespace rehearse
