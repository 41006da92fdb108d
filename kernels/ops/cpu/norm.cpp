#include <cmath>
#include <vector>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

/// Parameters are read once into double: their type is independent of the activations'.
std::vector<double> doubles_of(const ConstTensorView& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.elements()));
  if (tensor.given())
    with_float_type(tensor.dtype, [&](auto tag) {
      const auto* from = elements_of<decltype(tag)>(tensor);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(from[i]);
    });
  return values;
}

struct RowStatistics {
  double mean = 0, inverse_deviation = 0;
};

template <typename T>
RowStatistics statistics_of(const T* x, std::int64_t h, bool centered, double epsilon) {
  double mean = 0;
  if (centered) {
    for (std::int64_t j = 0; j < h; ++j) mean += value(x[j]);
    mean /= static_cast<double>(h);
  }
  double squares = 0;
  for (std::int64_t j = 0; j < h; ++j) squares += (value(x[j]) - mean) * (value(x[j]) - mean);
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(h) + epsilon)};
}

template <typename T, typename Wide>
void norm_rows(const NormForward& call, const std::vector<double>& weight,
               const std::vector<double>& bias, std::int64_t begin, std::int64_t end) {
  const std::int64_t h = call.x.size(1);
  const bool centered = call.kind == Norm::LayerNorm;
  for (std::int64_t i = begin; i < end; ++i) {
    const T* x = elements_of<T>(call.x) + i * h;
    if (call.residual.given()) {
      const T* residual = elements_of<T>(call.residual) + i * h;
      T* sum = elements_of<T>(call.sum) + i * h;
      for (std::int64_t j = 0; j < h; ++j)
        store(sum[j], static_cast<double>(value(x[j])) + value(residual[j]));
      x = sum;
    }
    const RowStatistics row = statistics_of(x, h, centered, call.epsilon);
    T* out = elements_of<T>(call.out) + i * h;
    for (std::int64_t j = 0; j < h; ++j) {
      const auto column = static_cast<std::size_t>(j);
      const double scaled = (value(x[j]) - row.mean) * row.inverse_deviation * weight[column];
      store(out[j], centered ? scaled + bias[column] : scaled);
    }
    store(elements_of<Wide>(call.inverse_deviation)[i], row.inverse_deviation);
    if (centered) store(elements_of<Wide>(call.mean)[i], row.mean);
  }
}

/// With x̂ the normalised row and g = d_out · weight:
///   LayerNorm  dx = (g − mean(g) − x̂ · mean(g·x̂)) / deviation
///   RMSNorm    the same without mean(g).
template <typename T, typename Wide>
void input_gradient_rows(const NormBackward& call, const std::vector<double>& weight,
                         std::int64_t begin, std::int64_t end) {
  const std::int64_t h = call.x.size(1);
  const bool centered = call.kind == Norm::LayerNorm;
  for (std::int64_t i = begin; i < end; ++i) {
    const T* x = elements_of<T>(call.x) + i * h;
    const T* d_out = elements_of<T>(call.d_out) + i * h;
    const double inverse = elements_of<Wide>(call.inverse_deviation)[i];
    const double mean = centered ? elements_of<Wide>(call.mean)[i] : 0.0;
    double gradient_mean = 0, projection = 0;
    for (std::int64_t j = 0; j < h; ++j) {
      const double g = value(d_out[j]) * weight[static_cast<std::size_t>(j)];
      gradient_mean += g;
      projection += g * (value(x[j]) - mean) * inverse;
    }
    gradient_mean = centered ? gradient_mean / static_cast<double>(h) : 0.0;
    projection /= static_cast<double>(h);
    const T* d_residual =
        call.d_residual.given() ? elements_of<T>(call.d_residual) + i * h : nullptr;
    T* d_x = elements_of<T>(call.d_x) + i * h;
    for (std::int64_t j = 0; j < h; ++j) {
      const double g = value(d_out[j]) * weight[static_cast<std::size_t>(j)];
      const double normal = (value(x[j]) - mean) * inverse;
      const double beside = d_residual != nullptr ? value(d_residual[j]) : 0.0;
      store(d_x[j], inverse * (g - gradient_mean - normal * projection) + beside);
    }
  }
}

template <typename T, typename Wide>
void parameter_gradient_columns(const NormBackward& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = call.x.size(0), h = call.x.size(1);
  const bool centered = call.kind == Norm::LayerNorm;
  std::vector<double> d_weight(static_cast<std::size_t>(end - begin)), d_bias(d_weight.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* x = elements_of<T>(call.x) + i * h;
    const T* d_out = elements_of<T>(call.d_out) + i * h;
    const double inverse = elements_of<Wide>(call.inverse_deviation)[i];
    const double mean = centered ? elements_of<Wide>(call.mean)[i] : 0.0;
    for (std::int64_t j = begin; j < end; ++j) {
      const auto column = static_cast<std::size_t>(j - begin);
      d_weight[column] += value(d_out[j]) * (value(x[j]) - mean) * inverse;
      d_bias[column] += value(d_out[j]);
    }
  }
  const auto add = [&](const TensorView& tensor, const std::vector<double>& sums) {
    auto* to = elements_of<Wide>(tensor);
    for (std::int64_t j = begin; j < end; ++j) {
      const double sum = sums[static_cast<std::size_t>(j - begin)];
      store(to[j], call.accumulate ? to[j] + sum : sum);
    }
  };
  add(call.d_weight, d_weight);
  if (centered) add(call.d_bias, d_bias);
}

}  // namespace

void compute(const NormForward& call, ThreadTeam& team) {
  const auto weight = doubles_of(call.weight), bias = doubles_of(call.bias);
  with_float_type(call.x.dtype, [&](auto tag) {
    with_wide_type(call.inverse_deviation.dtype, [&](auto wide) {
      team.for_each_range(
          call.x.size(0), 1 + 16384 / (call.x.size(1) + 1), [&](auto begin, auto end) {
            norm_rows<decltype(tag), decltype(wide)>(call, weight, bias, begin, end);
          });
    });
  });
}

void compute(const NormBackward& call, ThreadTeam& team) {
  const auto weight = doubles_of(call.weight);
  with_float_type(call.x.dtype, [&](auto tag) {
    with_wide_type(call.inverse_deviation.dtype, [&](auto wide) {
      using T = decltype(tag);
      using Wide = decltype(wide);
      // Parameter gradients first: d_x may be written over d_out.
      team.for_each_range(call.x.size(1), 64, [&](auto begin, auto end) {
        parameter_gradient_columns<T, Wide>(call, begin, end);
      });
      team.for_each_range(
          call.x.size(0), 1 + 16384 / (call.x.size(1) + 1),
          [&](auto begin, auto end) { input_gradient_rows<T, Wide>(call, weight, begin, end); });
    });
  });
}

}  // namespace rehearse
