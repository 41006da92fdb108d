#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/operator.h"
#include "kernels/ops/operator_call.h"

namespace rehearse {

/// What a tensor of a task holds before it is measured. Floats are normally distributed: zeros
/// draw less power and run faster than data does.
struct TaskTensor {
  enum class Fill : std::uint8_t { Normal, Positive, Indices, Offsets, One, Listed };
  DType dtype = DType::F32;
  TensorShape shape;
  Fill fill = Fill::Normal;
  std::int64_t bound = 0;  ///< Indices: of [0, bound); Offsets: steps of this length
  std::function<std::int32_t(std::int64_t)> listed = {};  ///< Listed: the i-th element, of int32

  std::size_t bytes() const {
    return static_cast<std::size_t>(shape.elements()) * element_bytes(dtype);
  }
};

/// One operator to be measured: as descriptors price it, and as devices compute it.
struct ProfileTask {
  Operator op;
  std::string label;  ///< "gemm", "attention", or the name of an operator bound by memory
  DType dtype = DType::F32;
  std::vector<TaskTensor> tensors;
  std::function<OperatorCall(const std::vector<TensorView>&)> call;
  bool sustained = false;  ///< also measured over a second without pause

  double bytes() const;  ///< of all its tensors
};

struct ProfileScope {
  std::vector<DType> dtypes;
  double most_flops = 5e9;  ///< of one operator
  /// Of attention, whole square and backward, and of experts' products, which CPUs compute through
  /// plain loops, ten times as slowly as other products.
  double most_plain_flops = 5e8;
  std::int64_t most_elements = 1 << 22;  ///< of one operand
  /// Shapes of the first type, in 3 layouts; up to a third are exact layers of the models.
  int products = 72;
  int other_products = 60;      ///< and of each other type
  int fp8_products = 0;         ///< and of fp8, whose one layout serves all passes
  int sustained_products = 0;   ///< of the first type
  int expert_products = 30;     ///< quasi-random shapes of grouped products, in 3 layouts
  int other_matrix_shapes = 4;  ///< of batches, and of products with epilogues
  int memory_sizes = 4;         ///< sizes an operator bound by memory is measured in
  int attentions = 12;          ///< quasi-random shapes of attention
  std::vector<std::int64_t> head_sizes = {64, 128};
  std::vector<std::int64_t> sequence_lengths = {128, 512};  ///< exact ones, rising
  std::vector<std::int64_t> model_tokens = {512};  ///< rows of the shipped models' exact shapes
};
/// What a CPU of a few cores measures in under two minutes: products up to 5 GFLOP.
ProfileScope cpu_scope();
/// What a data-centre GPU measures in under eight: 1,500 shapes of products in three layouts in
/// bf16, a fifth as many in fp32, where each takes ten times as long, and 200 in fp8.
ProfileScope gpu_scope(bool has_fp8 = true);

/// Every task of a scope, in a fixed order; every kind of call is among them. Products: shapes
/// spread evenly in the logarithm and their odd neighbours, never powers of two alone, and exact
/// layers of the catalogue's models, whole and cut over tensor ranks.
std::vector<ProfileTask> profile_tasks(const ProfileScope& scope);

std::vector<ProfileTask> product_tasks(const ProfileScope& scope, DType dtype);
std::vector<ProfileTask> attention_tasks(const ProfileScope& scope, DType dtype);
std::vector<ProfileTask> memory_tasks(const ProfileScope& scope, DType dtype);
/// Batches of products, and products with epilogues.
std::vector<ProfileTask> matrix_tasks(const ProfileScope& scope, DType dtype);
/// Experts: grouped products, routing, and tokens on their way.
std::vector<ProfileTask> expert_tasks(const ProfileScope& scope, DType dtype);
/// Elements of the `index`-th size that operators bound by memory are measured in: from 32 thousand
/// to the scope's most, evenly in the logarithm.
std::int64_t memory_elements(const ProfileScope& scope, int index);
Precision precision_of(DType dtype);

}  // namespace rehearse
