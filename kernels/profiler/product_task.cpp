// Tasks of matrix products: the three layouts of a linear layer in shapes that are spread evenly,
// and in those that the catalogue's models have.
#include <cmath>

#include "kernels/profiler/model_shapes.h"
#include "kernels/profiler/profile_task.h"
#include "kernels/profiler/statistics.h"

namespace rehearse {
namespace {

struct ProductShape {
  std::int64_t m, n, k;
  double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

bool fits(const ProductShape& at, const ProfileScope& scope) {
  return at.flops() <= scope.most_flops && at.m * at.k <= scope.most_elements &&
         at.n * at.k <= scope.most_elements && at.m * at.n <= scope.most_elements;
}

/// The three products of a linear layer with m rows, n outputs and k inputs.
void add_layouts(std::vector<ProfileTask>& tasks, DType dtype, const ProductShape& at,
                 bool sustained) {
  const Precision precision = precision_of(dtype);
  const TaskTensor x{.dtype = dtype, .shape = {at.m, at.k}},
      w{.dtype = dtype, .shape = {at.n, at.k}};
  const TaskTensor y{.dtype = dtype, .shape = {at.m, at.n}};
  const TaskTensor d_w{.dtype = DType::F32, .shape = {at.n, at.k}};
  tasks.push_back({.op = gemm(OperatorName::Qkv, Pass::Forward, precision, at.m, at.n, at.k),
                   .label = "gemm",
                   .dtype = dtype,
                   .tensors = {x, w, y},
                   .call = [](const auto& t) -> OperatorCall {
                     return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_b = true};
                   },
                   .sustained = sustained});
  tasks.push_back({.op = gemm(OperatorName::Qkv, Pass::InputGradient, precision, at.m, at.k, at.n),
                   .label = "gemm",
                   .dtype = dtype,
                   .tensors = {y, w, x},
                   .call = [](const auto& t) -> OperatorCall {
                     return Gemm{.a = t[0], .b = t[1], .out = t[2]};
                   }});
  tasks.push_back(
      {.op = gemm(OperatorName::Qkv, Pass::WeightGradient, precision, at.n, at.k, at.m, true),
       .label = "gemm",
       .dtype = dtype,
       .tensors = {y, x, d_w},
       .call = [](const auto& t) -> OperatorCall {
         return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_a = true, .accumulate = true};
       }});
}

/// fp8 has one layout, a·bᵀ: gradients multiply copies that were transposed before.
void add_fp8_passes(std::vector<ProfileTask>& tasks, const ProductShape& at) {
  const auto add = [&](Pass pass, const ProductShape& of, bool accumulate) {
    const TaskTensor a{.dtype = DType::F8E4m3, .shape = {of.m, of.k}};
    const TaskTensor b{.dtype = DType::F8E4m3, .shape = {of.n, of.k}};
    const TaskTensor out{.dtype = accumulate ? DType::F32 : DType::Bf16, .shape = {of.m, of.n}};
    const TaskTensor scale{.dtype = DType::F32, .shape = {1}, .fill = TaskTensor::Fill::One};
    tasks.push_back(
        {.op = gemm(OperatorName::Qkv, pass, Precision::Fp8, of.m, of.n, of.k, accumulate),
         .label = "gemm",
         .dtype = DType::F8E4m3,
         .tensors = {a, b, out, scale, scale},
         .call = [accumulate](const auto& t) -> OperatorCall {
           return Gemm{.a = t[0],
                       .b = t[1],
                       .out = t[2],
                       .transpose_b = true,
                       .accumulate = accumulate,
                       .a_scale = t[3],
                       .b_scale = t[4]};
         }});
  };
  add(Pass::Forward, at, false);
  add(Pass::InputGradient, {at.m, at.k, at.n}, false);
  add(Pass::WeightGradient, {at.n, at.k, at.m}, true);
}

void add_passes(std::vector<ProfileTask>& tasks, DType dtype, const ProductShape& at,
                bool sustained) {
  if (dtype == DType::F8E4m3)
    add_fp8_passes(tasks, at);
  else
    add_layouts(tasks, dtype, at, sustained);
}

int wanted_products(const ProfileScope& scope, DType dtype) {
  if (dtype == DType::F8E4m3) return scope.fp8_products;
  return dtype == scope.dtypes.front() ? scope.products : scope.other_products;
}

/// Layers of the catalogue's models that fit the scope, `most` of them, evenly chosen; the numbers
/// of tokens take turns.
std::vector<ProductShape> exact_shapes(const ProfileScope& scope, DType dtype, int most) {
  std::vector<ProductShape> fitting, chosen;
  if (scope.model_tokens.empty()) return chosen;
  const std::int64_t multiple = dtype == DType::F8E4m3 ? 16 : 1;  // of what fp8 multiplies
  for (const LinearShape& layer : model_linear_shapes()) {
    const std::int64_t rows = scope.model_tokens[fitting.size() % scope.model_tokens.size()];
    const ProductShape at{rows, layer.outputs, layer.inputs};
    if (at.n % multiple == 0 && at.k % multiple == 0 && fits(at, scope)) fitting.push_back(at);
  }
  const auto count = static_cast<int>(fitting.size());
  const int kept = std::min(most, count);
  for (int i = 0; i < kept; ++i)
    chosen.push_back(fitting[static_cast<std::size_t>(std::int64_t{i} * count / kept)]);
  return chosen;
}

}  // namespace

std::vector<ProfileTask> product_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  const auto most = static_cast<std::int64_t>(std::cbrt(scope.most_flops / 2) * 4);
  const bool is_first = dtype == scope.dtypes.front(), is_fp8 = dtype == DType::F8E4m3;
  const int sustained = is_first ? scope.sustained_products : 0;
  const int all = wanted_products(scope, dtype);
  const std::vector<ProductShape> exact = exact_shapes(scope, dtype, all / 3);
  const int wanted = all - static_cast<int>(exact.size());
  int made = 0;
  for (std::int64_t i = 0; made < wanted && i < 100 * std::int64_t{wanted}; ++i) {
    // m may be any number of tokens, every fifth one odd; n and k are widths of models.
    ProductShape at{.m = log_uniform(quasi_random(i, 0), 16, most, is_fp8 ? 16 : 8),
                    .n = log_uniform(quasi_random(i, 1), 64, most, 16),
                    .k = log_uniform(quasi_random(i, 2), 64, most, 16)};
    if (is_fp8) at = {at.m / 16 * 16, at.n / 16 * 16, at.k / 16 * 16};  // also the greatest
    if (i % 5 == 4 && !is_fp8) at.m += i % 2 == 0 ? 1 : -1;
    if (!fits(at, scope)) continue;
    add_passes(tasks, dtype, at, made < sustained);
    ++made;
  }
  for (const ProductShape& at : exact) add_passes(tasks, dtype, at, false);
  return tasks;
}

}  // namespace rehearse
