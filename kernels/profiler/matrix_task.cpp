// Tasks of products with something more: batches of independent ones, and epilogues.
#include <cmath>

#include "kernels/profiler/profile_task.h"
#include "kernels/profiler/statistics.h"

namespace rehearse {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};

Sizes quasi_sizes(std::int64_t index, double most_flops, const ProfileScope& scope) {
  const auto most = static_cast<std::int64_t>(std::cbrt(most_flops / 2));
  const auto size = [&](int dimension) {
    const std::int64_t largest = std::min<std::int64_t>(
        std::max<std::int64_t>(64, most),
        static_cast<std::int64_t>(std::sqrt(static_cast<double>(scope.most_elements))));
    return log_uniform(quasi_random(index, dimension), 32, largest, 8) / 8 * 8;
  };
  return {size(0), size(1), size(2)};
}

void add_batched(std::vector<ProfileTask>& tasks, DType dtype, std::int64_t batch,
                 const Sizes& at) {
  tasks.push_back({.op = batched_gemm(OperatorName::Qkv, Pass::Forward, precision_of(dtype), batch,
                                      at.m, at.n, at.k),
                   .label = "gemm",
                   .dtype = dtype,
                   .tensors = {{.dtype = dtype, .shape = {batch, at.m, at.k}},
                               {.dtype = dtype, .shape = {batch, at.n, at.k}},
                               {.dtype = dtype, .shape = {batch, at.m, at.n}}},
                   .call = [](const auto& t) -> OperatorCall {
                     return Gemm{.a = t[0], .b = t[1], .out = t[2], .transpose_b = true};
                   }});
}

void add_epilogues(std::vector<ProfileTask>& tasks, DType dtype, const Sizes& at) {
  const TaskTensor x{.dtype = dtype, .shape = {at.m, at.k}};
  const TaskTensor w{.dtype = dtype, .shape = {at.n, at.k}};
  const TaskTensor y{.dtype = dtype, .shape = {at.m, at.n}};
  const TaskTensor bias{.dtype = dtype, .shape = {at.n}};
  const double saved = static_cast<double>(element_bytes(dtype)) * static_cast<double>(at.m * at.n);
  const auto add = [&](const char* label, Pass pass, double more_bytes,
                       std::vector<TaskTensor> tensors, auto call) {
    Operator op = gemm(OperatorName::Qkv, pass, precision_of(dtype), at.m, at.n, at.k);
    op.bytes += more_bytes;
    tasks.push_back(
        {.op = op, .label = label, .dtype = dtype, .tensors = std::move(tensors), .call = call});
  };
  add("gemm_bias", Pass::Forward, 0, {x, w, y, bias}, [](const auto& t) -> OperatorCall {
    return Gemm{.a = t[0],
                .b = t[1],
                .out = t[2],
                .transpose_b = true,
                .epilogue = Epilogue::Bias,
                .bias = t[3]};
  });
  add("gemm_bias_gelu", Pass::Forward, saved, {x, w, y, bias, y},
      [](const auto& t) -> OperatorCall {
        return Gemm{.a = t[0],
                    .b = t[1],
                    .out = t[2],
                    .transpose_b = true,
                    .epilogue = Epilogue::BiasGelu,
                    .bias = t[3],
                    .pre_activation = t[4]};
      });
  // The gradient that reaches the activation: weights lie as (k, n) here.
  add("gemm_gelu_gradient", Pass::InputGradient, saved,
      {x, {.dtype = dtype, .shape = {at.k, at.n}}, y, y}, [](const auto& t) -> OperatorCall {
        return Gemm{.a = t[0],
                    .b = t[1],
                    .out = t[2],
                    .epilogue = Epilogue::GeluGradient,
                    .pre_activation = t[3]};
      });
}

}  // namespace

std::vector<ProfileTask> matrix_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  constexpr std::int64_t kBatches[] = {8, 32, 12, 64, 96};
  for (int i = 0; i < scope.other_matrix_shapes; ++i) {
    const std::int64_t batch = kBatches[i % 5];
    const auto share = static_cast<double>(batch);
    const Sizes one = quasi_sizes(i, scope.most_flops / share, scope);
    if (batch * std::max({one.m * one.k, one.n * one.k, one.m * one.n}) <= scope.most_elements)
      add_batched(tasks, dtype, batch, one);
    add_epilogues(tasks, dtype, quasi_sizes(i, scope.most_flops, scope));
  }
  return tasks;
}

}  // namespace rehearse
