#include "kernels/profiler/profile_task.h"

#include <cmath>

#include "plan/ensure.h"

namespace rehearse {

double ProfileTask::bytes() const {
  double sum = 0;
  for (const TaskTensor& tensor : tensors) sum += static_cast<double>(tensor.bytes());
  return sum;
}

Precision precision_of(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return Precision::Fp32;
    case DType::Bf16:
      return Precision::Bf16;
    case DType::F8E4m3:
      return Precision::Fp8;
    default:
      ensure(false, "operators are profiled in fp32, bf16 and fp8");
      return Precision::Fp32;
  }
}

ProfileScope cpu_scope() { return {.dtypes = {DType::F32}}; }

ProfileScope gpu_scope(bool has_fp8) {
  return {.dtypes = {DType::Bf16, DType::F32},
          .most_flops = 1e13,
          .most_plain_flops = 1e13,
          .most_elements = std::int64_t{1} << 29,
          .products = 1500,
          .other_products = 300,
          .fp8_products = has_fp8 ? 200 : 0,
          .sustained_products = 40,
          .expert_products = 45,
          .other_matrix_shapes = 20,
          .memory_sizes = 10,
          .attentions = 48,
          .head_sizes = {64, 96, 128},
          .sequence_lengths = {512, 2048, 4096, 8192, 16384},
          .model_tokens = {2048, 8192}};
}

std::int64_t memory_elements(const ProfileScope& scope, int index) {
  constexpr double kLeast = 32768;
  const auto most = static_cast<double>(std::min<std::int64_t>(scope.most_elements, 1 << 28)) / 4;
  const double share =
      scope.memory_sizes == 1 ? 1.0 : static_cast<double>(index) / (scope.memory_sizes - 1);
  return std::llround(kLeast * std::pow(most / kLeast, share));
}

std::vector<ProfileTask> profile_tasks(const ProfileScope& scope) {
  std::vector<ProfileTask> tasks;
  const auto add = [&](std::vector<ProfileTask> more) {
    for (ProfileTask& task : more) tasks.push_back(std::move(task));
  };
  for (const DType dtype : scope.dtypes)
    for (const auto& family :
         {product_tasks, attention_tasks, memory_tasks, matrix_tasks, expert_tasks})
      add(family(scope, dtype));
  if (scope.fp8_products > 0) add(product_tasks(scope, DType::F8E4m3));
  return tasks;
}

}  // namespace rehearse
