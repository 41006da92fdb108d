#pragma once
#include <cstdint>
#include <vector>

#include "kernels/operator.h"
#include "plan/model.h"
#include "plan/plan.h"

namespace rehearse {

/// The part of a model and a plan that one tensor rank's operators depend on.
struct LayerShape {
  Model model;
  int tp = 1;
  int cp = 1;
  std::int64_t micro_batch = 1;  ///< sequences
  std::int64_t seq_len = 1;      ///< tokens of a whole sequence
  int padded_vocab = 0;
  bool sequence_parallel = false;
  bool vocabulary_parallel = true;
  Recompute recompute = Recompute::None;
  AttentionKernel attention = AttentionKernel::Flash;
  Precision precision = Precision::Bf16;
  Precision gradient_precision = Precision::Fp32;
  double dropout = 0;

  std::int64_t tokens() const { return micro_batch * seq_len / cp; }  ///< a rank handles
};
LayerShape layer_shape(const Model& model, const Plan& plan, int seq_len);

enum class CollectiveKind : std::uint8_t {
  AllReduce,
  AllGather,
  ReduceScatter,
  Broadcast,
  AllToAll,
  SendReceive,
};
const char* collective_name(CollectiveKind kind);

/// One step of a layer: an operator, or a collective of the tensor group. `bytes` of a
/// collective: the whole buffer (all-reduce: its size; all-gather: the gathered result;
/// reduce-scatter: the input).
struct LayerItem {
  bool is_collective = false;
  Operator op;
  CollectiveKind collective = CollectiveKind::AllReduce;
  double bytes = 0;
};

/// The items of a piece of the model in execution order, on one tensor rank for one
/// micro-batch. The backward contains the recomputed forward that the plan asks for, input
/// gradients and weight gradients; `weight_gradients_last` moves the weight gradients to the
/// end (split backward), else they stand beside their input gradient.
/// Collectives follow Megatron-LM: without sequence parallelism two all-reduces in the forward
/// and two in the backward of a layer; with it, an all-gather before and a reduce-scatter after
/// each block, and one more all-gather of the saved input for the weight gradient.
std::vector<LayerItem> layer_forward(const LayerShape& shape);
std::vector<LayerItem> layer_backward(const LayerShape& shape);
std::vector<LayerItem> embedding_forward(const LayerShape& shape);
std::vector<LayerItem> embedding_backward(const LayerShape& shape);
/// Final norm, head and loss.
std::vector<LayerItem> head_forward(const LayerShape& shape);
std::vector<LayerItem> head_backward(const LayerShape& shape);
/// Gradient norm and clipping over `owned` parameters, then Adam (fp32 master weights) on them.
std::vector<Operator> optimizer_operators(double gradient_parameters, double owned_parameters,
                                          Precision precision, Precision gradient_precision);

/// A tensor that the forward keeps for the backward, on one tensor rank for one micro-batch.
struct SavedTensor {
  const char* name = "";
  double bytes = 0;
};
std::vector<SavedTensor> layer_saved_tensors(const LayerShape& shape);
std::vector<SavedTensor> embedding_saved_tensors(const LayerShape& shape);
std::vector<SavedTensor> head_saved_tensors(const LayerShape& shape);
/// Bytes a rank sends to the next stage for one micro-batch.
double boundary_bytes(const LayerShape& shape);

/// Parameters held by one tensor rank: split matrices divided by tp, norms and row-parallel
/// biases replicated.
double layer_parameters_per_rank(const LayerShape& shape);
double embedding_parameters_per_rank(const LayerShape& shape);
/// Final norm and head; a tied head still needs its own copy where the stage is not the first.
double head_parameters_per_rank(const LayerShape& shape, bool with_table);

}  // namespace rehearse
