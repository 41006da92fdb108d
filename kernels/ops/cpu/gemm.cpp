#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ops/cpu/activation_formulas.h"
#include "kernels/ops/cpu/blas.h"
#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

/// A matrix as BLAS wants it: fp32 or fp64, with its leading dimension. Narrow types are widened
/// into `storage` first.
template <typename Work>
struct BlasMatrix {
  std::vector<Work> storage;
  const Work* data = nullptr;
  std::int64_t leading = 0;
};

/// The `batch`-th matrix of a rank-3 tensor, or the rank-2 tensor itself.
template <typename View>
View matrix_of(const View& tensor, std::int64_t batch) {
  if (tensor.shape.rank == 2) return tensor;
  View matrix = slice_rows(tensor, batch, 1);
  matrix.shape = TensorShape{tensor.size(1), tensor.size(2)};
  return matrix;
}

template <typename Work>
BlasMatrix<Work> widened(const ConstTensorView& tensor, double scale, ThreadTeam& team) {
  BlasMatrix<Work> matrix;
  with_float_type(tensor.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, Work>) {
      matrix.data = elements_of<T>(tensor);
      matrix.leading = tensor.shape.stride;
    } else {
      const std::int64_t rows = tensor.size(0), columns = tensor.size(1);
      matrix.storage.resize(static_cast<std::size_t>(rows * columns));
      const T* from = elements_of<T>(tensor);
      Work* to = matrix.storage.data();
      team.for_each_range(rows, 1 + 65536 / (columns + 1), [&](auto begin, auto end) {
        for (std::int64_t i = begin; i < end; ++i)
          for (std::int64_t j = 0; j < columns; ++j)
            to[i * columns + j] =
                static_cast<Work>(scale * value(from[i * tensor.shape.stride + j]));
      });
      matrix.data = matrix.storage.data();
      matrix.leading = columns;
    }
  });
  return matrix;
}

template <typename Work, typename Out>
void store_with_epilogue(const Gemm& call, const TensorView& out, const std::vector<Work>& product,
                         ThreadTeam& team) {
  const std::int64_t m = out.size(0), n = out.size(1);
  Out* to = elements_of<Out>(out);
  Out* pre = elements_of<Out>(call.pre_activation);
  const auto bias_at = [&](std::int64_t j) -> double {
    if (!call.bias.given()) return 0;
    double bias = 0;
    with_float_type(call.bias.dtype,
                    [&](auto tag) { bias = value(elements_of<decltype(tag)>(call.bias)[j]); });
    return bias;
  };
  std::vector<double> bias(static_cast<std::size_t>(n));
  for (std::int64_t j = 0; j < n; ++j) bias[static_cast<std::size_t>(j)] = bias_at(j);
  team.for_each_range(m, 1 + 16384 / (n + 1), [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = static_cast<double>(product[static_cast<std::size_t>(i * n + j)]) +
                     bias[static_cast<std::size_t>(j)];
        Out& element = to[i * out.shape.stride + j];
        if (call.accumulate) sum += value(element);
        if (call.epilogue == Epilogue::BiasGelu) {
          store(pre[i * n + j], sum);
          sum = gelu(sum);
        } else if (call.epilogue == Epilogue::GeluGradient) {
          sum *= gelu_slope(value(pre[i * n + j]));
        }
        store(element, sum);
      }
  });
}

double scale_of(const ConstTensorView& scale) {
  return scale.given() ? static_cast<double>(elements_of<float>(scale)[0]) : 1.0;
}

/// Puts the bias into every row of `out`, for a product that is added to it: this pass takes the
/// place of the one that would have set `out` to zero, so that a bias costs next to nothing.
template <typename Work>
void begin_with_bias(const ConstTensorView& bias, const TensorView& out, ThreadTeam& team) {
  const std::int64_t n = out.size(1);
  std::vector<Work> row(static_cast<std::size_t>(n));
  with_float_type(bias.dtype, [&](auto tag) {
    const auto* from = elements_of<decltype(tag)>(bias);
    for (std::int64_t j = 0; j < n; ++j)
      row[static_cast<std::size_t>(j)] = static_cast<Work>(value(from[j]));
  });
  Work* to = elements_of<Work>(out);
  team.for_each_range(out.size(0), 1 + 65536 / (n + 1), [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::copy(row.begin(), row.end(), to + i * out.shape.stride);
  });
}

template <typename Work>
void one_product(const Gemm& call, std::int64_t batch, ThreadTeam& team) {
  const ConstTensorView a = matrix_of(call.a, batch), b = matrix_of(call.b, batch);
  const TensorView out = matrix_of(call.out, batch);
  const auto wide_a = widened<Work>(a, scale_of(call.a_scale), team);
  const auto wide_b = widened<Work>(b, scale_of(call.b_scale), team);
  BlasProduct<Work> product{.a = wide_a.data,
                            .b = wide_b.data,
                            .a_leading = wide_a.leading,
                            .b_leading = wide_b.leading,
                            .transpose_a = call.transpose_a,
                            .transpose_b = call.transpose_b,
                            .m = out.size(0),
                            .n = out.size(1),
                            .k = call.transpose_a ? a.size(0) : a.size(1)};
  const bool adds_bias = call.epilogue == Epilogue::Bias;
  const bool direct = (call.epilogue == Epilogue::None || adds_bias) &&
                      element_bytes(out.dtype) == sizeof(Work) && out.dtype != DType::I32;
  if (direct) {
    if (adds_bias) begin_with_bias<Work>(call.bias, out, team);
    product.out = elements_of<Work>(out);
    product.out_leading = out.shape.stride;
    product.accumulate = call.accumulate || adds_bias;
    return multiply(product, team);
  }
  std::vector<Work> result(static_cast<std::size_t>(product.m * product.n));
  product.out = result.data();
  product.out_leading = product.n;
  multiply(product, team);
  with_float_type(out.dtype, [&](auto tag) {
    store_with_epilogue<Work, decltype(tag)>(call, out, result, team);
  });
}

}  // namespace

void compute(const Gemm& call, ThreadTeam& team) {
  const std::int64_t batches = call.out.shape.rank == 3 ? call.out.size(0) : 1;
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    if (call.a.dtype == DType::F64)
      one_product<double>(call, batch, team);
    else
      one_product<float>(call, batch, team);
  }
}

namespace {

/// Checks what the shapes could not: the offsets' values.
void check_offsets(const ConstTensorView& offsets, std::int64_t rows) {
  const std::int32_t* offset = elements_of<std::int32_t>(offsets);
  const std::int64_t experts = offsets.size(0) - 1;
  bool rising = offset[0] == 0 && offset[experts] == rows;
  for (std::int64_t e = 0; e < experts; ++e) rising = rising && offset[e] <= offset[e + 1];
  if (!rising) throw OperatorError("grouped_gemm: offsets do not rise from 0 to the rows");
}

/// The matrix of one expert in a rank-3 tensor.
template <typename View>
View expert_matrix(const View& tensor, std::int64_t expert) {
  return matrix_of(tensor, expert);
}

}  // namespace

void compute(const GroupedGemm& call, ThreadTeam& team) {
  check_offsets(call.offsets, call.a.size(0));
  const std::int32_t* offset = elements_of<std::int32_t>(call.offsets);
  const bool is_weight = call.product == GroupedProduct::WeightGradient;
  for (std::int64_t e = 0; e + 1 < call.offsets.size(0); ++e) {
    const std::int64_t first = offset[e], count = offset[e + 1] - first;
    if (count == 0 && !is_weight) continue;
    Gemm gemm;
    gemm.a = slice_rows(call.a, first, count);
    gemm.b = is_weight ? slice_rows(call.b, first, count) : expert_matrix(call.b, e);
    gemm.out = is_weight ? expert_matrix(call.out, e) : slice_rows(call.out, first, count);
    gemm.transpose_a = is_weight;
    gemm.transpose_b = call.product == GroupedProduct::Forward;
    gemm.accumulate = call.accumulate;
    compute(gemm, team);
  }
}

void compute(const ColumnSum& call, ThreadTeam& team) {
  const std::int64_t rows = call.x.size(0), n = call.x.size(1);
  with_float_type(call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_wide_type(call.out.dtype, [&](auto wide) {
      const T* x = elements_of<T>(call.x);
      auto* out = elements_of<decltype(wide)>(call.out);
      team.for_each_range(n, 64, [&](auto begin, auto end) {
        std::vector<double> sums(static_cast<std::size_t>(end - begin));
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = begin; j < end; ++j)
            sums[static_cast<std::size_t>(j - begin)] += value(x[i * call.x.shape.stride + j]);
        for (std::int64_t j = begin; j < end; ++j) {
          const double sum = sums[static_cast<std::size_t>(j - begin)];
          store(out[j], call.accumulate ? out[j] + sum : sum);
        }
      });
    });
  });
}

}  // namespace rehearse
