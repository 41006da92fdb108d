#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

/// A float type's statistics: fp64 beside fp64, else fp32.
template <typename T>
using WideOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Columns of a slice that belong to the vocabulary, the rest being padding.
std::int64_t real_columns(const ConstTensorView& logits, std::int64_t first_column,
                          std::int64_t vocabulary) {
  return std::clamp<std::int64_t>(vocabulary - first_column, 0, logits.size(1));
}

}  // namespace

void compute(const EmbeddingForward& call, ThreadTeam& team) {
  const std::int64_t rows = call.out.size(0), h = call.out.size(1);
  with_float_type(call.table.dtype, [&](auto tag) {
    using T = decltype(tag);
    team.for_each_range(rows, 1 + 16384 / (h + 1), [&](auto begin, auto end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* out = elements_of<T>(call.out) + t * h;
        const std::int64_t row = elements_of<std::int32_t>(call.tokens)[t] - call.first_row;
        if (row >= 0 && row < call.table.size(0))
          std::copy_n(elements_of<T>(call.table) + row * h, h, out);
        else
          std::fill_n(out, h, T{});
        if (!call.positions.given()) continue;
        const std::int64_t position = elements_of<std::int32_t>(call.positions)[t];
        if (position < 0 || position >= call.position_table.size(0))
          throw OperatorError("embedding_forward: position " + std::to_string(position) +
                              " lies outside the table of " +
                              std::to_string(call.position_table.size(0)));
        const T* place = elements_of<T>(call.position_table) + position * h;
        for (std::int64_t j = 0; j < h; ++j) store(out[j], value(out[j]) + value(place[j]));
      }
    });
  });
}

void compute(const EmbeddingBackward& call, ThreadTeam& team) {
  const std::int64_t rows = call.d_out.size(0), h = call.d_out.size(1);
  const std::int32_t* tokens = elements_of<std::int32_t>(call.tokens);
  with_float_type(call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* d_out = elements_of<T>(call.d_out);
    auto* d_table = elements_of<WideOf<T>>(call.d_table);
    // Threads share columns, so that each sum has one owner and one order.
    team.for_each_range(h, 64, [&](auto begin, auto end) {
      for (std::int64_t t = 0; t < rows; ++t) {
        const std::int64_t row = tokens[t] - call.first_row;
        if (row < 0 || row >= call.d_table.size(0)) continue;
        for (std::int64_t j = begin; j < end; ++j)
          store(d_table[row * h + j], d_table[row * h + j] + value(d_out[t * h + j]));
      }
    });
  });
}

void compute(const CrossEntropyForward& call, ThreadTeam& team) {
  const std::int64_t rows = call.logits.size(0), width = call.logits.size(1);
  const std::int64_t columns = real_columns(call.logits, call.first_column, call.vocabulary);
  with_float_type(call.logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    using Wide = WideOf<T>;
    team.for_each_range(rows, 1 + 4096 / (width + 1), [&](auto begin, auto end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* logits = elements_of<T>(call.logits) + t * width;
        auto maximum = -std::numeric_limits<decltype(value(T{}))>::infinity();
        for (std::int64_t j = 0; j < columns; ++j) maximum = std::max(maximum, value(logits[j]));
        double sum = 0;
        for (std::int64_t j = 0; j < columns; ++j) sum += std::exp(value(logits[j]) - maximum);
        const std::int64_t target = elements_of<std::int32_t>(call.targets)[t] - call.first_column;
        elements_of<Wide>(call.maximum)[t] = maximum;
        store(elements_of<Wide>(call.sum)[t], sum);
        elements_of<Wide>(call.target_logit)[t] =
            target >= 0 && target < columns ? value(logits[target]) : 0;
      }
    });
  });
}

void compute(const CrossEntropyRescale& call, ThreadTeam&) {
  with_wide_type(call.sum.dtype, [&](auto tag) {
    using Wide = decltype(tag);
    for (std::int64_t t = 0; t < call.sum.size(0); ++t) {
      const double down = static_cast<double>(elements_of<Wide>(call.local_maximum)[t]) -
                          elements_of<Wide>(call.maximum)[t];
      Wide& sum = elements_of<Wide>(call.sum)[t];
      // A slice of nothing but padding has maximum −∞ and sum 0.
      store(sum, sum == 0 ? 0.0 : sum * std::exp(down));
    }
  });
}

namespace {

/// A target of the whole vocabulary: below 0 it is ignored, beyond it is an error.
void check_target(std::int64_t target, std::int64_t vocabulary) {
  if (target >= vocabulary)
    throw OperatorError("cross_entropy_backward: target " + std::to_string(target) +
                        " lies outside the vocabulary of " + std::to_string(vocabulary));
}

template <typename T>
void gradient_rows(const CrossEntropyBackward& call, std::int64_t begin, std::int64_t end) {
  using Wide = WideOf<T>;
  const std::int64_t width = call.logits.size(1);
  const std::int64_t columns = real_columns(call.logits, call.first_column, call.vocabulary);
  for (std::int64_t t = begin; t < end; ++t) {
    T* logits = elements_of<T>(call.logits) + t * width;
    const std::int64_t target = elements_of<std::int32_t>(call.targets)[t];
    check_target(target, call.vocabulary);
    const double maximum = elements_of<Wide>(call.maximum)[t];
    const double sum = elements_of<Wide>(call.sum)[t];
    const double scale = target < 0 ? 0.0 : elements_of<Wide>(call.loss_scale)[t];
    const double loss = std::log(sum) + maximum - elements_of<Wide>(call.target_logit)[t];
    store(elements_of<Wide>(call.loss)[t], target < 0 ? 0.0 : loss);
    const double factor = scale / sum;
    for (std::int64_t j = 0; j < columns; ++j) {
      const double one_hot = j + call.first_column == target ? scale : 0.0;
      const auto shifted = static_cast<decltype(value(T{}))>(value(logits[j]) - maximum);
      store(logits[j], factor * std::exp(shifted) - one_hot);
    }
    std::fill(logits + columns, logits + width, T{});
  }
}

}  // namespace

void compute(const CrossEntropyBackward& call, ThreadTeam& team) {
  with_float_type(call.logits.dtype, [&](auto tag) {
    team.for_each_range(
        call.logits.size(0), 1 + 4096 / (call.logits.size(1) + 1),
        [&](auto begin, auto end) { gradient_rows<decltype(tag)>(call, begin, end); });
  });
}

}  // namespace rehearse
