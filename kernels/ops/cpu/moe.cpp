#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

template <typename Wide>
void route_row(const RouterForward& call, std::int64_t t) {
  const std::int64_t experts = call.logits.size(1), k = call.experts.size(1);
  const Wide* logits = elements_of<Wide>(call.logits) + t * experts;
  Wide* probability = elements_of<Wide>(call.probabilities) + t * experts;
  const double maximum = *std::max_element(logits, logits + experts);
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - maximum);
  for (std::int64_t e = 0; e < experts; ++e)
    store(probability[e], std::exp(logits[e] - maximum) / sum);

  std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  // By the logits, which rounding has not yet made equal. NaN is above all.
  std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](auto a, auto b) {
    const bool a_is_nan = std::isnan(logits[a]), b_is_nan = std::isnan(logits[b]);
    if (a_is_nan != b_is_nan) return a_is_nan;
    return !a_is_nan && logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  double chosen = 0;
  for (std::int64_t s = 0; s < k; ++s) chosen += probability[order[static_cast<std::size_t>(s)]];
  for (std::int64_t s = 0; s < k; ++s) {
    const std::int32_t expert = order[static_cast<std::size_t>(s)];
    elements_of<std::int32_t>(call.experts)[t * k + s] = expert;
    store(elements_of<Wide>(call.weights)[t * k + s],
          call.normalize ? probability[expert] / chosen : probability[expert]);
  }
}

/// weights w = p_chosen / S with S = Σ p_chosen: dp_chosen = (dw − Σ dw·w) / S; then through the
/// softmax: d_logits = p · (dp − Σ dp·p).
template <typename Wide>
void route_row_backward(const RouterBackward& call, std::int64_t t) {
  const std::int64_t experts = call.probabilities.size(1), k = call.experts.size(1);
  const Wide* probability = elements_of<Wide>(call.probabilities) + t * experts;
  const std::int32_t* chosen = elements_of<std::int32_t>(call.experts) + t * k;
  const Wide* d_weights = elements_of<Wide>(call.d_weights) + t * k;
  std::vector<double> slope(static_cast<std::size_t>(experts));
  if (call.d_probabilities.given())
    for (std::int64_t e = 0; e < experts; ++e)
      slope[static_cast<std::size_t>(e)] = elements_of<Wide>(call.d_probabilities)[t * experts + e];
  double sum = 0, product = 0;
  for (std::int64_t s = 0; s < k; ++s) {
    sum += probability[chosen[s]];
    product += static_cast<double>(d_weights[s]) * probability[chosen[s]];
  }
  for (std::int64_t s = 0; s < k; ++s)
    slope[static_cast<std::size_t>(chosen[s])] +=
        call.normalize ? (d_weights[s] - product / sum) / sum : d_weights[s];
  double mean = 0;
  for (std::int64_t e = 0; e < experts; ++e)
    mean += slope[static_cast<std::size_t>(e)] * probability[e];
  Wide* d_logits = elements_of<Wide>(call.d_logits) + t * experts;
  for (std::int64_t e = 0; e < experts; ++e)
    store(d_logits[e], probability[e] * (slope[static_cast<std::size_t>(e)] - mean));
}

/// Row of the sorted pairs; refuses one outside.
std::int64_t destination_of(const ConstTensorView& destination, std::int64_t pair) {
  const std::int64_t row = elements_of<std::int32_t>(destination)[pair];
  if (row < 0 || row >= destination.elements())
    throw OperatorError("moe: destination " + std::to_string(row) + " lies outside the rows");
  return row;
}

template <typename T>
using WideOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
double weight_of(const ConstTensorView& weights, std::int64_t pair) {
  return weights.given() ? elements_of<WideOf<T>>(weights)[pair] : 1.0;
}

}  // namespace

void compute(const RouterForward& call, ThreadTeam& team) {
  with_wide_type(call.logits.dtype, [&](auto wide) {
    team.for_each_range(call.logits.size(0), 64, [&](auto begin, auto end) {
      for (std::int64_t t = begin; t < end; ++t) route_row<decltype(wide)>(call, t);
    });
  });
}

void compute(const RouterBackward& call, ThreadTeam& team) {
  with_wide_type(call.probabilities.dtype, [&](auto wide) {
    team.for_each_range(call.probabilities.size(0), 64, [&](auto begin, auto end) {
      for (std::int64_t t = begin; t < end; ++t) route_row_backward<decltype(wide)>(call, t);
    });
  });
}

void compute(const MoeSort& call, ThreadTeam&) {
  const std::int64_t pairs = call.experts.elements(), experts = call.offsets.size(0) - 1;
  const std::int32_t* expert = elements_of<std::int32_t>(call.experts);
  std::vector<std::int32_t> next(static_cast<std::size_t>(experts + 1));
  for (std::int64_t i = 0; i < pairs; ++i) {
    if (expert[i] < 0 || expert[i] >= experts)
      throw OperatorError("moe_sort: expert " + std::to_string(expert[i]) + " of " +
                          std::to_string(experts));
    ++next[static_cast<std::size_t>(expert[i] + 1)];
  }
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::copy(next.begin(), next.end(), elements_of<std::int32_t>(call.offsets));
  for (std::int64_t i = 0; i < pairs; ++i)
    elements_of<std::int32_t>(call.destination)[i] = next[static_cast<std::size_t>(expert[i])]++;
}

void compute(const MoePermute& call, ThreadTeam& team) {
  const std::int64_t tokens = call.x.size(0), h = call.x.size(1), k = call.destination.size(1);
  with_float_type(call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    team.for_each_range(tokens * k, 1 + 16384 / (h + 1), [&](auto begin, auto end) {
      for (std::int64_t pair = begin; pair < end; ++pair) {
        const T* x = elements_of<T>(call.x) + pair / k * h;
        T* out = elements_of<T>(call.out) + destination_of(call.destination, pair) * h;
        const double weight = weight_of<T>(call.weights, pair);
        for (std::int64_t j = 0; j < h; ++j) store(out[j], weight * value(x[j]));
      }
    });
  });
}

void compute(const MoeCombine& call, ThreadTeam& team) {
  const std::int64_t tokens = call.out.size(0), h = call.out.size(1), k = call.destination.size(1);
  with_float_type(call.out.dtype, [&](auto tag) {
    using T = decltype(tag);
    team.for_each_range(tokens, 1 + 16384 / (k * h + 1), [&](auto begin, auto end) {
      std::vector<double> sum(static_cast<std::size_t>(h));
      for (std::int64_t t = begin; t < end; ++t) {
        std::fill(sum.begin(), sum.end(), 0.0);
        for (std::int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
          const T* x = elements_of<T>(call.x) + destination_of(call.destination, pair) * h;
          const double weight = weight_of<T>(call.weights, pair);
          for (std::int64_t j = 0; j < h; ++j)
            sum[static_cast<std::size_t>(j)] += weight * value(x[j]);
        }
        T* out = elements_of<T>(call.out) + t * h;
        for (std::int64_t j = 0; j < h; ++j) store(out[j], sum[static_cast<std::size_t>(j)]);
      }
    });
  });
}

void compute(const MoeWeightGradient& call, ThreadTeam& team) {
  const std::int64_t h = call.d_out.size(1), k = call.destination.size(1);
  with_float_type(call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    auto* d_weights = elements_of<WideOf<T>>(call.d_weights);
    team.for_each_range(
        call.destination.elements(), 1 + 16384 / (h + 1), [&](auto begin, auto end) {
          for (std::int64_t pair = begin; pair < end; ++pair) {
            const T* d_out = elements_of<T>(call.d_out) + pair / k * h;
            const T* x = elements_of<T>(call.x) + destination_of(call.destination, pair) * h;
            double sum = 0;
            for (std::int64_t j = 0; j < h; ++j)
              sum += static_cast<double>(value(d_out[j])) * value(x[j]);
            store(d_weights[pair], sum);
          }
        });
  });
}

}  // namespace rehearse
