// Tasks of operators bound by memory. Their bytes are counted as kernels/layer.cpp counts them:
// each tensor once each way.

#include <algorithm>
#include <cmath>

#include "kernels/profiler/profile_task.h"

namespace rehearse {
namespace {

/// Collects the tasks of one size: rows of `width` elements.
class MemoryTasks {
 public:
  MemoryTasks(std::vector<ProfileTask>& tasks, DType dtype, std::int64_t rows, std::int64_t width)
      : tasks_(tasks), dtype_(dtype), rows_(rows), width_(width) {}

  void add_all() {
    add_norms();
    add_layer_norms();
    add_residual_norms();
    add_activations();
    add_dropout();
    add_rope();
    add_embedding();
    add_cross_entropy();
    add_optimizer();
    add_copies();
    add_sums();
  }

 private:
  using Fill = TaskTensor::Fill;
  using Views = std::vector<TensorView>;

  double elements() const { return static_cast<double>(rows_) * static_cast<double>(width_); }
  double element() const { return static_cast<double>(element_bytes(dtype_)); }
  TaskTensor matrix() const { return {.dtype = dtype_, .shape = {rows_, width_}}; }
  TaskTensor wide_matrix(std::int64_t factor) const {
    return {.dtype = dtype_, .shape = {rows_, factor * width_}};
  }
  TaskTensor row(DType dtype, std::int64_t size, Fill fill = Fill::Positive) const {
    return {.dtype = dtype, .shape = {size}, .fill = fill};
  }
  TaskTensor flat(DType dtype, Fill fill = Fill::Normal) const {
    return {.dtype = dtype, .shape = {rows_ * width_}, .fill = fill};
  }
  void add(OperatorName name, Pass pass, double bytes, std::vector<TaskTensor> tensors,
           std::function<OperatorCall(const Views&)> call) {
    add(operator_name(name), name, pass, bytes, std::move(tensors), std::move(call));
  }
  /// Under another label than its operator's: measured_labels.h says what each means.
  void add(const char* label, OperatorName name, Pass pass, double bytes,
           std::vector<TaskTensor> tensors, std::function<OperatorCall(const Views&)> call) {
    tasks_.push_back({.op = memory_operator(name, pass, bytes),
                      .label = label,
                      .dtype = dtype_,
                      .tensors = std::move(tensors),
                      .call = std::move(call)});
  }

  void add_norms() {
    add(OperatorName::Norm, Pass::Forward, 2 * element() * elements() + statistics(1),
        {matrix(), row(dtype_, width_), matrix(), row(DType::F32, rows_)}, [](const Views& t) {
          return NormForward{.kind = Norm::RmsNorm,
                             .x = t[0],
                             .weight = t[1],
                             .out = t[2],
                             .inverse_deviation = t[3]};
        });
    add(OperatorName::Norm, Pass::InputGradient, 3 * element() * elements() + statistics(1),
        {matrix(), matrix(), row(dtype_, width_), row(DType::F32, rows_), matrix(),
         row(DType::F32, width_)},
        [](const Views& t) {
          return NormBackward{.kind = Norm::RmsNorm,
                              .d_out = t[0],
                              .x = t[1],
                              .weight = t[2],
                              .inverse_deviation = t[3],
                              .d_x = t[4],
                              .d_weight = t[5]};
        });
  }

  /// Bytes of so many fp32 numbers a row.
  double statistics(int count) const { return 4.0 * count * static_cast<double>(rows_); }

  void add_layer_norms() {
    const TaskTensor per_row = row(DType::F32, rows_), weight = row(dtype_, width_);
    const TaskTensor d_weight = row(DType::F32, width_);
    add("layer_norm", OperatorName::Norm, Pass::Forward, 2 * element() * elements() + statistics(2),
        {matrix(), weight, weight, matrix(), per_row, per_row}, [](const Views& t) {
          return NormForward{.kind = Norm::LayerNorm,
                             .x = t[0],
                             .weight = t[1],
                             .bias = t[2],
                             .out = t[3],
                             .mean = t[4],
                             .inverse_deviation = t[5]};
        });
    add("layer_norm", OperatorName::Norm, Pass::InputGradient,
        3 * element() * elements() + statistics(2),
        {matrix(), matrix(), weight, per_row, per_row, matrix(), d_weight, d_weight},
        [](const Views& t) {
          return NormBackward{.kind = Norm::LayerNorm,
                              .d_out = t[0],
                              .x = t[1],
                              .weight = t[2],
                              .mean = t[3],
                              .inverse_deviation = t[4],
                              .d_x = t[5],
                              .d_weight = t[6],
                              .d_bias = t[7]};
        });
  }

  void add_residual_norms() {
    const TaskTensor per_row = row(DType::F32, rows_), weight = row(dtype_, width_);
    add("norm_residual", OperatorName::Norm, Pass::Forward,
        4 * element() * elements() + statistics(1),
        {matrix(), matrix(), weight, matrix(), matrix(), per_row}, [](const Views& t) {
          return NormForward{.kind = Norm::RmsNorm,
                             .x = t[0],
                             .residual = t[1],
                             .weight = t[2],
                             .sum = t[3],
                             .out = t[4],
                             .inverse_deviation = t[5]};
        });
    add("norm_residual", OperatorName::Norm, Pass::InputGradient,
        4 * element() * elements() + statistics(1),
        {matrix(), matrix(), weight, per_row, matrix(), matrix(), row(DType::F32, width_)},
        [](const Views& t) {
          return NormBackward{.kind = Norm::RmsNorm,
                              .d_out = t[0],
                              .x = t[1],
                              .weight = t[2],
                              .inverse_deviation = t[3],
                              .d_residual = t[4],
                              .d_x = t[5],
                              .d_weight = t[6]};
        });
  }

  void add_dropout() {
    const TaskTensor mask{.dtype = DType::U8, .shape = {rows_, width_}};
    add("dropout", OperatorName::ResidualAdd, Pass::Forward, (3 * element() + 1) * elements(),
        {matrix(), matrix(), matrix(), mask}, [](const Views& t) {
          return DropoutForward{
              .x = t[0], .residual = t[1], .out = t[2], .mask = t[3], .probability = 0.1f};
        });
    add("dropout", OperatorName::ResidualAdd, Pass::InputGradient, (2 * element() + 1) * elements(),
        {matrix(), mask, matrix()}, [](const Views& t) {
          return DropoutBackward{.d_out = t[0], .mask = t[1], .d_x = t[2], .probability = 0.1f};
        });
  }

  void add_activations() {
    add("gelu", OperatorName::FfnActivation, Pass::Forward, 2 * element() * elements(),
        {matrix(), matrix()}, [](const Views& t) {
          return ActivationForward{.kind = Activation::Gelu, .x = t[0], .out = t[1]};
        });
    add("gelu", OperatorName::FfnActivation, Pass::InputGradient, 3 * element() * elements(),
        {matrix(), matrix(), matrix()}, [](const Views& t) {
          return ActivationBackward{
              .kind = Activation::Gelu, .x = t[0], .d_out = t[1], .d_x = t[2]};
        });
    add(OperatorName::FfnActivation, Pass::Forward, 3 * element() * elements(),
        {wide_matrix(2), matrix()}, [](const Views& t) {
          return ActivationForward{.kind = Activation::Swiglu, .x = t[0], .out = t[1]};
        });
    add(OperatorName::FfnActivation, Pass::InputGradient, 5 * element() * elements(),
        {wide_matrix(2), matrix(), wide_matrix(2)}, [](const Views& t) {
          return ActivationBackward{
              .kind = Activation::Swiglu, .x = t[0], .d_out = t[1], .d_x = t[2]};
        });
    add(OperatorName::ResidualAdd, Pass::Forward, 3 * element() * elements(),
        {matrix(), matrix(), matrix()},
        [](const Views& t) { return Add{.a = t[0], .b = t[1], .out = t[2]}; });
  }

  void add_rope() {
    const std::int64_t head = width_ % 128 == 0 ? 128 : 64;
    const TaskTensor heads{.dtype = dtype_, .shape = {rows_, width_ / head, head}};
    const TaskTensor table{.dtype = DType::F32, .shape = {rows_, head}};
    const TaskTensor places{
        .dtype = DType::I32, .shape = {rows_}, .fill = Fill::Indices, .bound = rows_};
    add(OperatorName::Rope, Pass::Forward, 2 * element() * elements(), {heads, table, places},
        [](const Views& t) { return Rope{.x = t[0], .cosine_sine = t[1], .positions = t[2]}; });
  }

  void add_embedding() {
    // Few words return among few tokens.
    const std::int64_t words = std::min<std::int64_t>(8192, 4 * rows_);
    const TaskTensor tokens{
        .dtype = DType::I32, .shape = {rows_}, .fill = Fill::Indices, .bound = words};
    const TaskTensor table{.dtype = dtype_, .shape = {words, width_}};
    add(OperatorName::Embedding, Pass::Forward,
        2 * element() * elements() + 8 * static_cast<double>(rows_), {tokens, table, matrix()},
        [](const Views& t) {
          return EmbeddingForward{.tokens = t[0], .table = t[1], .out = t[2]};
        });
    // The gradient's row is read and written for each token, as kernels/layer_ends.cpp counts it.
    add(OperatorName::Embedding, Pass::WeightGradient,
        (element() + 8) * elements() + 8 * static_cast<double>(rows_),
        {tokens, matrix(), {.dtype = DType::F32, .shape = {words, width_}}}, [](const Views& t) {
          return EmbeddingBackward{.tokens = t[0], .d_out = t[1], .d_table = t[2]};
        });
  }

  /// As many logits as elements, over a vocabulary as models have it: GPT-2's, padded to a multiple
  /// of 64; fewer where there are not eight rows of them.
  void add_cross_entropy() {
    const auto count = static_cast<std::int64_t>(elements());
    const std::int64_t vocabulary = std::min<std::int64_t>(50304, count / 8 / 64 * 64);
    const std::int64_t tokens = count / vocabulary;
    const double logits = static_cast<double>(tokens) * static_cast<double>(vocabulary);
    const TaskTensor matrix{.dtype = dtype_, .shape = {tokens, vocabulary}};
    const TaskTensor targets{
        .dtype = DType::I32, .shape = {tokens}, .fill = Fill::Indices, .bound = vocabulary};
    const TaskTensor statistic = row(DType::F32, tokens);
    add(OperatorName::CrossEntropy, Pass::Forward, element() * logits,
        {matrix, targets, statistic, statistic, statistic}, [vocabulary](const Views& t) {
          return CrossEntropyForward{.logits = t[0],
                                     .targets = t[1],
                                     .vocabulary = vocabulary,
                                     .maximum = t[2],
                                     .sum = t[3],
                                     .target_logit = t[4]};
        });
    add(OperatorName::CrossEntropy, Pass::InputGradient, 2 * element() * logits,
        {matrix, targets, statistic, statistic, statistic, statistic, statistic},
        [vocabulary](const Views& t) {
          return CrossEntropyBackward{.logits = t[0],
                                      .targets = t[1],
                                      .vocabulary = vocabulary,
                                      .maximum = t[2],
                                      .sum = t[3],
                                      .target_logit = t[4],
                                      .loss_scale = t[5],
                                      .loss = t[6]};
        });
  }

  void add_optimizer() {
    const TaskTensor state = flat(DType::F32, Fill::Positive), gradient = flat(DType::F32);
    const double narrow = dtype_ == DType::Bf16 ? 2 : 0;
    std::vector<TaskTensor> tensors{state, state, state, gradient};
    if (narrow > 0) tensors.push_back(flat(DType::Bf16));
    add(OperatorName::Adam, Pass::Update, (28 + narrow) * elements(), tensors, [](const Views& t) {
      AdamUpdate update{
          .master = t[0], .first_moment = t[1], .second_moment = t[2], .gradient = t[3]};
      if (t.size() > 4) update.parameter = t[4];
      return update;
    });
    const TaskTensor sum{.dtype = DType::F64, .shape = {1}, .fill = Fill::One};
    add(OperatorName::GradientNorm, Pass::Update, 4 * elements(), {gradient, sum},
        [](const Views& t) { return SquaredSum{.x = t[0], .out = t[1]}; });
  }

  void add_copies() {
    const DType other = dtype_ == DType::Bf16 ? DType::F32 : DType::Bf16;
    add(OperatorName::Cast, Pass::Forward, 6 * elements(), {flat(dtype_), flat(other)},
        [](const Views& t) { return Cast{.x = t[0], .out = t[1]}; });
    const TaskTensor one = row(DType::F32, 1, Fill::One);
    add(OperatorName::Cast, Pass::Forward, (element() + 1) * elements(),
        {flat(dtype_), flat(DType::F8E4m3), one},
        [](const Views& t) { return Cast{.x = t[0], .out = t[1], .scale = t[2]}; });
    add("cast_from_fp8", OperatorName::Cast, Pass::Forward, (element() + 1) * elements(),
        {flat(DType::F8E4m3), flat(dtype_), one},
        [](const Views& t) { return Cast{.x = t[0], .out = t[1], .scale = t[2]}; });
    add("scale", OperatorName::Cast, Pass::Update, 2 * element() * elements(), {flat(dtype_), one},
        [](const Views& t) { return Scale{.x = t[0], .factor = t[1]}; });
    add("bucket_copy", OperatorName::GradientAccumulate, Pass::Update, 2 * element() * elements(),
        {matrix(), matrix(), {.dtype = dtype_, .shape = {2 * rows_ * width_}}}, [](const Views& t) {
          return BucketCopy{.tensors = {t[0], t[1]}, .bucket = t[2]};
        });
    tasks_.back().op.bytes *= 2;  // of two tensors
  }

  void add_sums() {
    add("column_sum", OperatorName::Qkv, Pass::WeightGradient, element() * elements(),
        {matrix(), row(DType::F32, width_)},
        [](const Views& t) { return ColumnSum{.x = t[0], .out = t[1], .accumulate = true}; });
    const TaskTensor part = flat(dtype_);
    add("bucket_reduce", OperatorName::GradientAccumulate, Pass::Update, 5 * element() * elements(),
        {part, part, part, part, part}, [](const Views& t) {
          return BucketReduce{.inputs = {t[0], t[1], t[2], t[3]}, .out = t[4], .scale = 0.25f};
        });
    add_join();
    const TaskTensor of_rows = row(DType::F32, rows_);
    add("cross_entropy_rescale", OperatorName::CrossEntropy, Pass::Forward, statistics(4),
        {of_rows, of_rows, of_rows}, [](const Views& t) {
          return CrossEntropyRescale{.local_maximum = t[0], .maximum = t[1], .sum = t[2]};
        });
    add("clip_factor", OperatorName::GradientNorm, Pass::Update, 12,
        {{.dtype = DType::F64, .shape = {1}, .fill = Fill::One}, row(DType::F32, 1)},
        [](const Views& t) { return ClipFactor{.squared_sum = t[0], .factor = t[1]}; });
  }

  /// Forward with log-sum-exps; gradients are added without.
  void add_join() {
    constexpr std::int64_t kHead = 64;
    const std::int64_t count = width_ / kHead;
    const TaskTensor heads{.dtype = dtype_, .shape = {rows_, count, kHead}};
    const TaskTensor lse{.dtype = DType::F32, .shape = {count, rows_}};
    const double bytes = 3 * element() * elements();
    add("attention_join", OperatorName::Attention, Pass::Forward, bytes,
        {heads, heads, heads, lse, lse, lse}, [](const Views& t) {
          return AttentionJoin{.a = t[0],
                               .b = t[1],
                               .a_log_sum_exp = t[3],
                               .b_log_sum_exp = t[4],
                               .out = t[2],
                               .log_sum_exp = t[5]};
        });
    add("attention_join", OperatorName::Attention, Pass::InputGradient, bytes,
        {heads, heads, heads},
        [](const Views& t) { return AttentionJoin{.a = t[0], .b = t[1], .out = t[2]}; });
  }

  std::vector<ProfileTask>& tasks_;
  DType dtype_;
  std::int64_t rows_, width_;
};

}  // namespace

std::vector<ProfileTask> memory_tasks(const ProfileScope& scope, DType dtype) {
  std::vector<ProfileTask> tasks;
  constexpr std::int64_t kWidths[] = {768, 4096, 1600, 5120};
  for (int i = 0; i < scope.memory_sizes; ++i) {
    const auto elements = static_cast<double>(memory_elements(scope, i));
    const std::int64_t width = kWidths[i % 4];
    const auto rows =
        std::max<std::int64_t>(8, std::llround(elements / static_cast<double>(width)));
    MemoryTasks(tasks, dtype, rows, width).add_all();
  }
  return tasks;
}

}  // namespace rehearse
