#include "kernels/profiler/profile_task.h"

#include <cmath>

#include "kernels/profiler/statistics.h"
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

ProfileScope gpu_scope() {
  return {.dtypes = {DType::Bf16, DType::F32},
          .most_flops = 1e13,
          .most_elements = std::int64_t{1} << 29,
          .products = 1500,
          .other_products = 500,
          .sustained_products = 40,
          .memory_sizes = 10,
          .head_sizes = {64, 96, 128},
          .sequence_lengths = {512, 2048, 4096, 8192, 16384},
          .model_tokens = {2048, 8192}};
}

namespace {

struct ProductShape {
  std::int64_t m, n, k;
  double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

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

/// (outputs, inputs) of the linear layers of GPT-2 124M (hidden 768), GPT-2 XL (1,600) and Llama 3
/// 8B (hidden 4,096, ffn 14,336, 8 key/value heads of 128): the published configurations.
constexpr std::pair<std::int64_t, std::int64_t> kModelLayers[] = {
    {2304, 768},  {768, 768},   {3072, 768},  {768, 3072},  {4800, 1600},  {1600, 1600},
    {6400, 1600}, {1600, 6400}, {6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};

}  // namespace

std::vector<ProfileTask> product_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  const auto fits = [&](const ProductShape& at) {
    return at.flops() <= scope.most_flops && at.m * at.k <= scope.most_elements &&
           at.n * at.k <= scope.most_elements && at.m * at.n <= scope.most_elements;
  };
  const auto most = static_cast<std::int64_t>(std::cbrt(scope.most_flops / 2) * 4);
  const bool is_first = dtype == scope.dtypes.front();
  const int sustained = is_first ? scope.sustained_products : 0;
  const int wanted = is_first ? scope.products : scope.other_products;
  int made = 0;
  for (std::int64_t i = 0; made < wanted && i < 100 * std::int64_t{wanted}; ++i) {
    // m may be any number of tokens, every fifth one odd; n and k are widths of models.
    ProductShape at{.m = log_uniform(quasi_random(i, 0), 16, most, 8),
                    .n = log_uniform(quasi_random(i, 1), 64, most, 16),
                    .k = log_uniform(quasi_random(i, 2), 64, most, 16)};
    if (i % 5 == 4) at.m += i % 2 == 0 ? 1 : -1;
    if (!fits(at)) continue;
    add_layouts(tasks, dtype, at, made < sustained);
    ++made;
  }
  for (const std::int64_t rows : scope.model_tokens)
    for (const auto& [n, k] : kModelLayers)
      if (const ProductShape at{rows, n, k}; fits(at)) add_layouts(tasks, dtype, at, false);
  return tasks;
}

namespace {

struct HeadCounts {
  std::int64_t heads, kv_heads;
};

void add_attention(std::vector<ProfileTask>& tasks, DType dtype, std::int64_t batch,
                   std::int64_t length, HeadCounts heads, std::int64_t d, bool causal) {
  const std::int64_t tokens = batch * length;
  const TaskTensor query{.dtype = dtype, .shape = {tokens, heads.heads, d}};
  const TaskTensor key{.dtype = dtype, .shape = {tokens, heads.kv_heads, d}};
  const TaskTensor lse{.dtype = DType::F32, .shape = {heads.heads, tokens}};
  const TaskTensor offsets{.dtype = DType::I32,
                           .shape = {batch + 1},
                           .fill = TaskTensor::Fill::Offsets,
                           .bound = length};
  const auto shape_of = [=](const TensorView& at) {
    return AttentionShape{.query_offsets = at,
                          .key_offsets = at,
                          .max_query_length = length,
                          .max_key_length = length,
                          .causal = causal,
                          .scale = 1 / std::sqrt(static_cast<float>(d))};
  };
  const auto described = [&](Pass pass) {
    return attention(pass, precision_of(dtype), batch, length, length, heads.heads, heads.kv_heads,
                     d, causal);
  };
  tasks.push_back({.op = described(Pass::Forward),
                   .label = "attention",
                   .dtype = dtype,
                   .tensors = {query, key, key, query, lse, offsets},
                   .call = [=](const auto& t) -> OperatorCall {
                     return AttentionForward{.query = t[0],
                                             .key = t[1],
                                             .value = t[2],
                                             .out = t[3],
                                             .log_sum_exp = t[4],
                                             .shape = shape_of(t[5])};
                   }});
  // Positive log-sum-exps far above the scores keep the weights finite and the time the same.
  TaskTensor saved = lse;
  saved.fill = TaskTensor::Fill::Positive;
  tasks.push_back({.op = described(Pass::InputGradient),
                   .label = "attention",
                   .dtype = dtype,
                   .tensors = {query, query, key, key, query, saved, offsets, query, key, key},
                   .call = [=](const auto& t) -> OperatorCall {
                     return AttentionBackward{.d_out = t[0],
                                              .query = t[1],
                                              .key = t[2],
                                              .value = t[3],
                                              .out = t[4],
                                              .log_sum_exp = t[5],
                                              .d_query = t[7],
                                              .d_key = t[8],
                                              .d_value = t[9],
                                              .shape = shape_of(t[6])};
                   }});
}

}  // namespace

std::vector<ProfileTask> attention_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  for (const std::int64_t d : scope.head_sizes)
    for (const std::int64_t length : scope.sequence_lengths)
      for (const HeadCounts heads : {HeadCounts{12, 12}, HeadCounts{32, 8}})
        for (const bool causal : {true, false}) {
          const double flops = 4.0 * static_cast<double>(length * length) *
                               static_cast<double>(heads.heads * d) * 2.5;
          // fp32 attention is a reference on GPUs, not a fast kernel.
          const double limit =
              dtype == DType::F32 ? std::min(scope.most_flops, 2e10) : scope.most_flops;
          if (flops > limit) continue;
          // Whole model depth of tokens: short sequences come in larger batches.
          const std::int64_t batch = std::max<std::int64_t>(
              1, std::min<std::int64_t>(scope.sequence_lengths.back() / length,
                                        static_cast<std::int64_t>(limit / flops)));
          add_attention(tasks, dtype, batch, length, heads, d, causal);
        }
  return tasks;
}

std::vector<ProfileTask> profile_tasks(const ProfileScope& scope) {
  std::vector<ProfileTask> tasks;
  for (const DType dtype : scope.dtypes)
    for (const auto& family : {product_tasks, attention_tasks, memory_tasks})
      for (ProfileTask& task : family(scope, dtype)) tasks.push_back(std::move(task));
  return tasks;
}

}  // namespace rehearse
