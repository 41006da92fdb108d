// Tasks of mixtures of experts: their grouped products, and what takes tokens there and back.
// Bytes are counted as kernels/layer_experts.cpp counts them.
#include <algorithm>
#include <cmath>

#include "kernels/profiler/model_shapes.h"
#include "kernels/profiler/profile_task.h"
#include "kernels/profiler/statistics.h"

namespace rehearse {
namespace {

using Fill = TaskTensor::Fill;

struct Grouped {
  std::int64_t experts, rows, n, k;  ///< rows of each expert
};

bool fits(const Grouped& at, const ProfileScope& scope) {
  const double flops = 2.0 * static_cast<double>(at.experts * at.rows) * static_cast<double>(at.n) *
                       static_cast<double>(at.k);
  const std::int64_t rows = at.experts * at.rows;
  return flops <= scope.most_plain_flops &&
         std::max({rows * at.k, rows * at.n, at.experts * at.n * at.k}) <= scope.most_elements;
}

/// The three products of experts' layer, the same rows for each: the mean that steps are priced by.
void add_grouped(std::vector<ProfileTask>& tasks, DType dtype, const Grouped& at) {
  const Precision precision = precision_of(dtype);
  const std::int64_t rows = at.experts * at.rows;
  const TaskTensor x{.dtype = dtype, .shape = {rows, at.k}},
      y{.dtype = dtype, .shape = {rows, at.n}};
  const TaskTensor w{.dtype = dtype, .shape = {at.experts, at.n, at.k}};
  const TaskTensor d_w{.dtype = DType::F32, .shape = {at.experts, at.n, at.k}};
  const TaskTensor offsets{
      .dtype = DType::I32, .shape = {at.experts + 1}, .fill = Fill::Offsets, .bound = at.rows};
  const auto add = [&](const Operator& op, GroupedProduct product,
                       std::vector<TaskTensor> tensors) {
    tasks.push_back({.op = op,
                     .label = "grouped_gemm",
                     .dtype = dtype,
                     .tensors = std::move(tensors),
                     .call = [product](const auto& t) -> OperatorCall {
                       return GroupedGemm{.product = product,
                                          .a = t[0],
                                          .b = t[1],
                                          .out = t[2],
                                          .offsets = t[3],
                                          .accumulate = product == GroupedProduct::WeightGradient};
                     }});
  };
  add(expert_gemm(Pass::Forward, precision, at.experts, at.rows, at.n, at.k),
      GroupedProduct::Forward, {x, w, y, offsets});
  add(expert_gemm(Pass::InputGradient, precision, at.experts, at.rows, at.k, at.n),
      GroupedProduct::InputGradient, {y, w, x, offsets});
  add(expert_gemm(Pass::WeightGradient, precision, at.experts, at.n, at.k, at.rows, true),
      GroupedProduct::WeightGradient, {y, x, d_w, offsets});
}

void add_exact_products(std::vector<ProfileTask>& tasks, const ProfileScope& scope, DType dtype) {
  for (const std::int64_t tokens : scope.model_tokens)
    for (const ExpertShape& layer : model_expert_shapes()) {
      const double rows = std::ceil(layer.rows_a_token * static_cast<double>(tokens));
      const Grouped at{layer.experts, static_cast<std::int64_t>(rows), layer.outputs, layer.inputs};
      if (fits(at, scope)) add_grouped(tasks, dtype, at);
    }
}

/// Rows that a permutation sends elsewhere: place i to i · 7919 mod count, each once, since 7919 is
/// a prime that divides no count here.
std::function<std::int32_t(std::int64_t)> scattered(std::int64_t count) {
  const std::int64_t stride = count % 7919 == 0 ? 7907 : 7919;
  return [count, stride](std::int64_t i) { return static_cast<std::int32_t>(i * stride % count); };
}

/// One size of what leads tokens to `k` of `experts` and back.
class RoutingTasks {
 public:
  RoutingTasks(std::vector<ProfileTask>& tasks, DType dtype, std::int64_t tokens,
               std::int64_t width, std::int64_t experts, std::int64_t k)
      : tasks_(tasks), dtype_(dtype), tokens_(tokens), width_(width), experts_(experts), k_(k) {}

  void add_router() {
    const TaskTensor logits{.dtype = DType::F32, .shape = {tokens_, experts_}};
    const TaskTensor weights{.dtype = DType::F32, .shape = {tokens_, k_}};
    const double bytes = 8 * static_cast<double>(tokens_ * experts_);
    add("router", OperatorName::Router, Pass::Forward, bytes, {logits, logits, chosen(), weights},
        [](const auto& t) -> OperatorCall {
          return RouterForward{
              .logits = t[0], .probabilities = t[1], .experts = t[2], .weights = t[3]};
        });
    TaskTensor probabilities = logits;
    probabilities.fill = Fill::Positive;
    add("router", OperatorName::Router, Pass::InputGradient, bytes,
        {probabilities, chosen(), weights, logits}, [](const auto& t) -> OperatorCall {
          return RouterBackward{
              .probabilities = t[0], .experts = t[1], .d_weights = t[2], .d_logits = t[3]};
        });
  }

  void add_moves() {
    const TaskTensor rows{.dtype = dtype_, .shape = {tokens_, width_}};
    const TaskTensor spread{.dtype = dtype_, .shape = {tokens_ * k_, width_}};
    const TaskTensor weights{.dtype = DType::F32, .shape = {tokens_, k_}};
    const TaskTensor offsets{.dtype = DType::I32, .shape = {experts_ + 1}};
    const double element = static_cast<double>(element_bytes(dtype_));
    const double moved = element * static_cast<double>(tokens_ * (1 + k_) * width_);
    add("moe_sort", OperatorName::TokenPermute, Pass::Forward,
        8 * static_cast<double>(tokens_ * k_), {chosen(), destination(), offsets},
        [](const auto& t) -> OperatorCall {
          return MoeSort{.experts = t[0], .destination = t[1], .offsets = t[2]};
        });
    add("token_permute", OperatorName::TokenPermute, Pass::Forward, moved,
        {rows, destination(), spread}, [](const auto& t) -> OperatorCall {
          return MoePermute{.x = t[0], .destination = t[1], .out = t[2]};
        });
    add("moe_combine", OperatorName::TokenPermute, Pass::Forward, moved,
        {spread, destination(), weights, rows}, [](const auto& t) -> OperatorCall {
          return MoeCombine{.x = t[0], .destination = t[1], .weights = t[2], .out = t[3]};
        });
    add("moe_weight_gradient", OperatorName::TokenPermute, Pass::InputGradient, moved,
        {rows, spread, destination(), weights}, [](const auto& t) -> OperatorCall {
          return MoeWeightGradient{
              .d_out = t[0], .x = t[1], .destination = t[2], .d_weights = t[3]};
        });
  }

 private:
  TaskTensor chosen() const {
    return {.dtype = DType::I32, .shape = {tokens_, k_}, .fill = Fill::Indices, .bound = experts_};
  }
  TaskTensor destination() const {
    return {.dtype = DType::I32,
            .shape = {tokens_, k_},
            .fill = Fill::Listed,
            .listed = scattered(tokens_ * k_)};
  }
  void add(const char* label, OperatorName name, Pass pass, double bytes,
           std::vector<TaskTensor> tensors,
           std::function<OperatorCall(const std::vector<TensorView>&)> call) {
    tasks_.push_back({.op = memory_operator(name, pass, bytes),
                      .label = label,
                      .dtype = dtype_,
                      .tensors = std::move(tensors),
                      .call = std::move(call)});
  }

  std::vector<ProfileTask>& tasks_;
  DType dtype_;
  std::int64_t tokens_, width_, experts_, k_;
};

}  // namespace

std::vector<ProfileTask> expert_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  constexpr std::int64_t kExperts[] = {8, 32, 4, 16, 64};
  const auto widest = static_cast<std::int64_t>(
      std::min(8192.0, std::sqrt(static_cast<double>(scope.most_elements))));
  int made = 0;
  for (std::int64_t i = 0; made < scope.expert_products && i < 100 * scope.expert_products; ++i) {
    const Grouped at{kExperts[i % 5], log_uniform(quasi_random(i, 0), 8, 4096, 1),
                     log_uniform(quasi_random(i, 1), 64, widest, 16) / 16 * 16,
                     log_uniform(quasi_random(i, 2), 64, widest, 16) / 16 * 16};
    if (!fits(at, scope)) continue;
    add_grouped(tasks, dtype, at);
    ++made;
  }
  if (scope.expert_products > 0 && dtype == scope.dtypes.front())
    add_exact_products(tasks, scope, dtype);
  // Tokens of the sizes that other operators bound by memory are measured in.
  constexpr std::int64_t kChoices[] = {2, 8, 6}, kPools[] = {8, 128, 256}, kWidths[] = {4096, 2048};
  for (int i = 0; i < scope.memory_sizes; ++i) {
    const std::int64_t k = kChoices[i % 3], width = kWidths[i % 2];
    const std::int64_t tokens = std::max<std::int64_t>(8, memory_elements(scope, i) / (width * k));
    RoutingTasks routing(tasks, dtype, tokens, width, kPools[i % 3], k);
    routing.add_moves();
    if (dtype == scope.dtypes.front())
      RoutingTasks(tasks, dtype,
                   std::max<std::int64_t>(8, memory_elements(scope, i) / kPools[i % 3]), width,
                   kPools[i % 3], k)
          .add_router();
  }
  return tasks;
}

}  // namespace rehearse
