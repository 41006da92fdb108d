#pragma once
#include <cstdint>
#include <vector>

#include "kernels/operator.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

/// What selective recomputation drops after the forward and makes again in the backward.
struct RepeatedParts {
  bool attention = false;       ///< the core: scores, softmax, weighted values
  bool norm = false;            ///< results of both norms
  bool ffn = false;             ///< the feed-forward block, products and collectives
  bool ffn_activation = false;  ///< the result of the activation function
  bool latent_up = false;       ///< queries, keys and values, from their latents
};

/// The part of a model and a plan that one tensor rank's operators depend on.
struct LayerShape {
  Model model;
  int tp = 1;
  int tensor_rows = 1;  ///< of the grid that weights are cut over; 1: by columns, then by rows
  int cp = 1;
  int ep = 1;                   ///< ranks that hold a layer's experts
  int expert_tp = 1;            ///< tensor ranks that share one expert: 1, or all
  double expert_load = 1;       ///< tokens of the busiest rank's experts, as a multiple of the mean
  double expert_deviation = 0;  ///< of experts' popularity (expert_load.h); 0: all layers alike
  double expert_capacity = 0;   ///< most that a rank's experts take; 0: no limit
  int routing_seed = 1;
  std::int64_t micro_batch = 1;  ///< sequences
  std::int64_t seq_len = 1;      ///< tokens of a whole sequence
  int padded_vocab = 0;
  bool sequence_parallel = false;
  bool vocabulary_parallel = true;
  Recompute recompute = Recompute::None;
  RepeatedParts repeated;     ///< selective; none named: the attention core where it is plain
  int recompute_layers = -1;  ///< layers of each chunk that recompute, from its first; −1: all
  Fp8Recipe fp8;
  AttentionKernel attention = AttentionKernel::Flash;
  Precision precision = Precision::Bf16;
  Precision gradient_precision = Precision::Fp32;
  ActivationStore store;
  double dropout = 0;
  ContextKind context = ContextKind::Ring;
  bool context_balanced = true;
  bool context_overlap = true;  ///< ring: a hop goes beside the block at work
  int context_rank = 0;         ///< of a ring without balance: later ranks have more to do
  double pair_share = 1;        ///< of attention's causal pairs, left by documents and windows
  /// Operators as this project's runner has them (runtime/train, kernels/ops), else Megatron-LM's:
  /// a norm takes the residual with it, back too; the loss is one pass over logits in the compute
  /// precision; the embedding adds positions on its way; ids are 32 bits.
  bool own_runner = false;

  std::int64_t tokens() const { return micro_batch * seq_len / cp; }  ///< a rank handles
  int tensor_columns() const { return tp / tensor_rows; }
};
LayerShape layer_shape(const Model& model, const Plan& plan, int seq_len,
                       const Routing& routing = {});
/// Tokens of the busiest rank's experts, as a multiple of the mean: all ranks wait for it. A
/// capacity bounds it, and padding fills up to it. In the mean of the layers: in each it is drawn
/// (`shape_of_layer`).
double expert_load(const Plan& plan, const Routing& routing);

/// The shape of one layer, where layers differ: those behind a chunk's `recompute_layers` keep
/// their activations, the `bf16_ends` of an fp8 model stay in 16 bits, a mixture's leading layers
/// are dense, and the busiest expert of each has a share of its own. `index` counts from the
/// chunk's first layer.
LayerShape shape_of_layer(const LayerShape& shape, int layer, int index);
/// What a layer of this shape repeats by name; all false unless it recomputes selectively.
RepeatedParts repeated_parts(const LayerShape& shape);

enum class CollectiveKind : std::uint8_t {
  AllReduce,
  AllGather,
  ReduceScatter,
  Broadcast,
  AllToAll,
  SendReceive,
};
inline constexpr CollectiveKind kCollectiveKinds[] = {
    CollectiveKind::AllReduce, CollectiveKind::AllGather, CollectiveKind::ReduceScatter,
    CollectiveKind::Broadcast, CollectiveKind::AllToAll,  CollectiveKind::SendReceive};
const char* collective_name(CollectiveKind kind);

/// Ranks that a layer's collectives join. Of a grid of tensor ranks, those of a row hold blocks of
/// the same inputs' weights, those of a column of the same outputs'.
enum class CommGroup : std::uint8_t { Tensor, Context, Experts, TensorRow, TensorColumn };
/// A tensor group, or a part of its grid.
inline bool is_tensor(CommGroup group) {
  return group != CommGroup::Context && group != CommGroup::Experts;
}

/// One step of a layer: an operator, or a collective of the tensor or context group, of a part of
/// the tensor ranks' grid, or of the ranks that share a layer's experts. `bytes` of a collective:
/// the whole buffer (all-reduce: its size; all-gather: the gathered result; reduce-scatter: the
/// input; all-to-all: what a rank holds before; send-receive, a hop of a ring: what each rank sends
/// to the next). A collective's `op` names the operator it belongs to, its pass and whether it is
/// recomputed; its shape, FLOPs and bytes stay zero.
struct LayerItem {
  bool is_collective = false;
  Operator op;
  CollectiveKind collective = CollectiveKind::AllReduce;
  CommGroup group = CommGroup::Tensor;
  double bytes = 0;
  /// Collectives: the next item does not need its result, and both are issued at once (gradient
  /// of a column-parallel product beside its weight gradient; a block of ring attention beside
  /// the hop that brings the next one's keys and values). Whoever needs the result comes after the
  /// next item.
  bool beside_next = false;
};

/// The items of a piece of the model in execution order, on one tensor rank for one
/// micro-batch. The backward contains the recomputed forward that the plan asks for, input
/// gradients and weight gradients; `weight_gradients_last` moves the weight gradients to the
/// end (split backward), else they stand beside their input gradient.
/// Collectives follow Megatron-LM: without sequence parallelism two all-reduces in the forward
/// and two in the backward of a layer; with it, an all-gather before and a reduce-scatter after
/// each block, and one more all-gather of the saved input for the weight gradient. Over a grid of
/// tensor ranks these join its rows, and others its columns (linear.cpp).
std::vector<LayerItem> layer_forward(const LayerShape& shape);
std::vector<LayerItem> layer_backward(const LayerShape& shape, bool weight_gradients_last = false);
std::vector<LayerItem> embedding_forward(const LayerShape& shape);
std::vector<LayerItem> embedding_backward(const LayerShape& shape);
/// Final norm, head and loss.
std::vector<LayerItem> head_forward(const LayerShape& shape);
std::vector<LayerItem> head_backward(const LayerShape& shape, bool weight_gradients_last = false);
/// The `module`-th of those that predict further tokens (Model::mtp_layers), from 0: next tokens
/// looked up, norms of both, their product side by side down to hidden, a layer, norm, head and
/// loss. The product is in 16 bits and whole on each tensor rank, of its share of the sequence.
std::vector<LayerItem> mtp_forward(const LayerShape& shape, int module);
std::vector<LayerItem> mtp_backward(const LayerShape& shape, int module,
                                    bool weight_gradients_last = false);
/// Its layer: as the model's last, with an expert load of its own.
LayerShape mtp_layer_shape(const LayerShape& shape, int module);
/// What a rank does once a step: clears `gradient_parameters` gradients, takes the norm of the
/// `owned_parameters` it updates, and runs Adam on them (fp32 master weights). With fp8, the
/// weights of the next step are cast and transposed too.
std::vector<Operator> optimizer_operators(double gradient_parameters, double owned_parameters,
                                          Precision precision, Precision gradient_precision,
                                          Precision moment_precision = Precision::Fp32);
/// Memory traffic of Adam for one parameter: master weight and both moments are read and written,
/// the gradient is read, and the 16-bit copy that layers use is written.
double adam_traffic_bytes(Precision precision, Precision gradient_precision,
                          Precision moment_precision);

/// A tensor that the forward keeps for the backward, on one tensor rank for one micro-batch.
/// The sums without recomputation, with it, and with each kind of tensor parallelism are the
/// rows of table 2 of Korthikanti et al. 2022 (arXiv 2205.05198); norm statistics (8 bytes a
/// token) are left out as there.
struct SavedTensor {
  const char* name = "";
  double bytes = 0;
};
std::vector<SavedTensor> layer_saved_tensors(const LayerShape& shape);
/// The most that the backward of one layer holds beside what was saved: gradients of the widest
/// activations, gathered inputs and, with recomputation, the recomputed tensors.
double layer_backward_workspace_bytes(const LayerShape& shape);
/// Logits in the compute precision, beside their saved fp32 copy; the runner saves no other.
double head_workspace_bytes(const LayerShape& shape);
std::vector<SavedTensor> embedding_saved_tensors(const LayerShape& shape);
std::vector<SavedTensor> head_saved_tensors(const LayerShape& shape);
/// Of a module that predicts a further token, beside its layer's and its loss's.
std::vector<SavedTensor> mtp_saved_tensors(const LayerShape& shape, int module);
/// Bytes a rank sends to the next stage for one micro-batch.
double boundary_bytes(const LayerShape& shape);

/// Parameters held by one tensor rank: split matrices divided by tp, norms and row-parallel
/// biases replicated.
double layer_parameters_per_rank(const LayerShape& shape);
/// Of these, the routed experts', which fewer ranks have copies of.
double expert_parameters_per_rank(const LayerShape& shape);
/// Of these, the elements of matrices whose products are fp8; 0 in other precisions.
double fp8_parameters_per_rank(const LayerShape& shape);
double embedding_parameters_per_rank(const LayerShape& shape);
/// Final norm and head; a tied head still needs its own copy where the stage is not the first.
double head_parameters_per_rank(const LayerShape& shape, bool with_table);
/// The embedding's table alone.
double table_parameters_per_rank(const LayerShape& shape);
/// Of a module that predicts a further token: its layer, product and norms.
double mtp_parameters_per_rank(const LayerShape& shape, int module);

}  // namespace rehearse
