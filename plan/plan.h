#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan_choices.h"
#include "plan/schedule.h"

namespace rehearse {

enum class Precision : std::uint8_t { Fp32, Bf16, Fp16, Fp8 };
/// Selective: the attention core. Operators: all but the attention core and every other matrix
/// product, in the order of the forward (torchtitan's selective checkpointing by operator).
enum class Recompute : std::uint8_t { None, Selective, Operators, Full };
/// Plain attention stores the s×s scores; Flash recomputes them from the saved log-sum-exp.
enum class AttentionKernel : std::uint8_t { Flash, Plain };

/// The axes of parallelism; a rank has one coordinate on each.
enum class Axis : std::uint8_t { Tensor, Context, Data, Pipeline };
inline constexpr int kAxisCount = 4;

/// Everything that says how a model is spread over ranks and in what order the work is done:
/// complete enough to run for real. Field names are the scenario file's.
struct Plan {
  std::string name;
  int dp = 0;  ///< data-parallel replicas; 0 until resolved: all GPUs that tp·cp·pp leave
  int tp = 1;  ///< tensor-parallel ranks
  int cp = 1;  ///< context-parallel ranks
  int pp = 1;  ///< pipeline stages
  int ep = 1;  ///< expert-parallel ranks, inside the data ranks
  /// Two-dimensional tensor parallelism: rows of the grid that weights are cut over by blocks, tp
  /// / tensor_rows columns; 1: whole columns and whole rows in turn (Megatron-LM).
  int tensor_rows = 1;
  ContextKind context = ContextKind::Ring;
  bool context_balanced = true;  ///< context rank r holds pieces r and 2·cp − 1 − r of a sequence
  ExpertPlan experts;
  int virtual_stages = 1;  ///< model chunks a stage holds (interleaving when > 1)
  int micro_batch = 1;     ///< sequences a micro-batch
  ScheduleKind schedule = ScheduleKind::OneFOneB;
  /// ZeRO stage, what data ranks share out: 0 nothing, 1 optimizer state, 2 gradients too,
  /// 3 weights too (FSDP).
  int zero = 0;
  int shard = 0;     ///< ZeRO-2, 3: data ranks that share one set of shards (HSDP); 0: all of them
  int prefetch = 1;  ///< ZeRO-3: layers whose weights are gathered ahead of the one at work
  bool reshard_after_forward = true;     ///< ZeRO-3: weights are gathered again for the backward
  bool reduce_every_micro_batch = true;  ///< ZeRO-2, 3: else once a step, on whole gradients
  bool sequence_parallel = false;
  bool vocabulary_parallel = true;  ///< embedding and head split over tensor ranks
  Recompute recompute = Recompute::None;
  int recompute_layers = -1;  ///< layers of each chunk that recompute, from its first; −1: all
  /// Selective: names of what is repeated (attention, norm, ffn, ffn-activation); empty: attention.
  std::vector<std::string> recompute_operators;
  Offload offload;
  AttentionKernel attention = AttentionKernel::Flash;
  Precision precision = Precision::Bf16;
  Fp8Recipe fp8;
  ActivationStore store;
  Precision gradient_precision = Precision::Fp32;  ///< of accumulation and reduction
  Precision moment_precision = Precision::Fp32;    ///< of Adam's two moments
  double dropout = 0;                              ///< > 0: masks are kept for the backward
  double bucket_bytes = 0;  ///< gradient bucket; 0: max(40 M, 1 M · dp) parameters (Megatron)
  Overlap overlap;
  Updates updates;
  BatchSplit batch_split = BatchSplit::Even;
  /// Micro-batches that each replica works through in a step; empty: all the same number.
  std::vector<int> replica_micro_batches;
  int rebalance_every = 0;  ///< steps between new shares by measured speed; 0: never
  /// How pieces of the model, pp · virtual_stages of them, are dealt out to stages. RoundRobin is
  /// the interleaving of the schedules.
  Deal stage_placement = Deal::RoundRobin;
  /// Fastest-varying axis first. Megatron's default order is tp-cp-dp-pp.
  std::array<Axis, kAxisCount> rank_order{Axis::Tensor, Axis::Context, Axis::Data, Axis::Pipeline};
  /// Layers of each chunk in model order (pp · virtual_stages entries, chunk c of stage s at
  /// index c·pp + s); empty: as even as whole numbers allow.
  std::vector<int> layer_split;
  bool embedding_slot = false;  ///< even split: the embedding counts as one layer
  bool loss_slot = false;       ///< even split: head and loss count as one layer
  bool balanced_split = false;  ///< layers spread so that the slowest stage is the fastest
  int schedule_group = 0;       ///< interleaving: micro-batches of a chunk in a row; 0: stages
  /// Explicit order of work, one text a stage: "F0 F1 B0 …" (see plan_file.h); empty: the
  /// schedule's.
  std::vector<std::string> actions;
  /// Whose defaults hold where the plan says nothing, and whose costs beside kernels.
  Framework framework = Framework::Generic;
  /// Fields that the file says itself ("dropout", "overlap/gradients"): no default replaces them.
  std::vector<std::string> stated;
};

/// Ranks the plan needs. REQUIRES: dp resolved.
inline int world_size(const Plan& plan) { return plan.dp * plan.tp * plan.cp * plan.pp; }

/// Data ranks over which ZeRO shards what it shards. REQUIRES: dp resolved.
inline int shard_ranks(const Plan& plan) {
  const bool hybrid = plan.zero >= 2 && plan.shard > 0;
  return hybrid ? plan.shard : plan.dp;
}

/// Micro-batches each replica works through in a step. REQUIRES: the plan was checked.
std::int64_t micro_batches(const Plan& plan, std::int64_t global_batch);

/// Layers of each chunk in model order, `plan.layer_split` or the even split with its slots
/// (earlier chunks take the remainder). REQUIRES: the plan was checked against the model.
std::vector<int> chunk_layers(const Plan& plan, int layers);

/// Bytes of one element.
double bytes_of(Precision precision);

}  // namespace rehearse
