// Peak memory of each stage, from three sources:
//   states       ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): weights, gradients, and for
//                Adam a master copy in fp32 and two moments; ZeRO-1 shards the latter over data
//                ranks. With fp32 gradients 18 bytes a parameter, sharded 6 + 12/N, as
//                Megatron-LM's theoretical_memory_usage.py counts. ZeRO-2 and 3 shard gradients
//                and weights too, and hold whole ones of the layers at work.
//   activations  the saved tensors of kernels/layer_memory.cpp for every micro-batch in flight,
//                found by walking the schedule: the peak is at one moment, and so are its parts.
//   the runner   where the plan is run by this project itself (framework "rehearse"), its tensors
//                are walked one by one instead (runner_memory.cpp).
//   the rest     receive buffers between stages, and what context, libraries and communicators
//                take before the first tensor.

#include "strategies/memory.h"

#include <algorithm>
#include <numeric>

#include "kernels/layer.h"
#include "plan/ensure.h"
#include "strategies/runner_memory.h"
#include "strategies/split_backward.h"
#include "strategies/state_shares.h"

namespace rehearse {
namespace {

constexpr double kMasterBytes = 4;

double sum(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

double saved_bytes(const LayerShape& layer) { return sum(layer_saved_tensors(layer)); }

/// What context and a rank's communicators hold.
double framework_bytes(const Plan& plan, const MemoryOverheads& overheads) {
  const auto communicator_bytes = [&](int ranks) {
    if (ranks < 2) return 0.0;
    return ranks == 2 ? overheads.pair_communicator.bytes : overheads.communicator.bytes;
  };
  const int rows = plan.tensor_rows;
  const double grid =
      rows > 1 ? communicator_bytes(rows) + communicator_bytes(plan.tp / rows) : 0.0;
  return overheads.context.bytes + communicator_bytes(plan.tp) + grid +
         communicator_bytes(plan.cp) + communicator_bytes(data_ranks(plan)) +
         communicator_bytes(plan.pp) + communicator_bytes(plan.ep);
}

/// Bytes of the tensors of one chunk of the model.
struct ChunkBytes {
  double saved = 0;           ///< of layers and embedding, for one micro-batch
  double head_saved = 0;      ///< final norm, logits
  double workspace = 0;       ///< beside them in a layer's backward
  double head_workspace = 0;  ///< beside them in the loss
  double kept_for_weights = 0, head_kept_for_weights = 0;  ///< between split backward's halves
};

/// What a stage holds at one moment.
struct Moment {
  double activations = 0, loss = 0, workspace = 0;
  double total() const { return activations + loss + workspace; }
};

/// Follows a stage through its actions and keeps the fullest moment.
class StageWalk {
 public:
  explicit StageWalk(std::vector<ChunkBytes> chunks) : chunks_(std::move(chunks)) {}

  void run(const std::vector<Action>& actions) {
    for (const Action& action : actions) {
      const ChunkBytes& chunk = chunks_.at(static_cast<std::size_t>(action.chunk));
      switch (action.kind) {
        case ActionKind::Forward:
          forward(chunk);
          break;
        case ActionKind::Backward:
          input_gradient(chunk, 0, 0);
          --in_flight_;
          break;
        case ActionKind::InputGradient:
          input_gradient(chunk, chunk.kept_for_weights, chunk.head_kept_for_weights);
          break;
        case ActionKind::WeightGradient:
          weight_gradient(chunk);
          break;
      }
    }
  }

  const Moment& peak() const { return peak_; }
  int most_in_flight() const { return most_in_flight_; }

 private:
  void forward(const ChunkBytes& chunk) {
    now_.activations += chunk.saved;
    now_.loss += chunk.head_saved;
    most_in_flight_ = std::max(most_in_flight_, ++in_flight_);
    consider(chunk.head_workspace, 0);
  }

  /// The loss comes first, beside all that was saved; its tensors are gone when the layers'
  /// gradients are at work. What a later weight gradient needs takes the place of what was saved.
  void input_gradient(const ChunkBytes& chunk, double kept, double head_kept) {
    consider(chunk.head_workspace, 0);
    now_.loss += head_kept - chunk.head_saved;
    consider(0, chunk.workspace);
    now_.activations += kept - chunk.saved;
    if (kept > chunk.saved) consider(0, chunk.workspace);  // the last of its layers
  }

  void weight_gradient(const ChunkBytes& chunk) {
    consider(0, 0);
    now_.loss -= chunk.head_kept_for_weights;
    now_.activations -= chunk.kept_for_weights;
    --in_flight_;
  }

  void consider(double loss_workspace, double workspace) {
    Moment moment = now_;
    moment.loss += loss_workspace;
    moment.workspace = workspace;
    if (moment.total() > peak_.total()) peak_ = moment;
  }

  std::vector<ChunkBytes> chunks_;
  Moment now_, peak_;
  int in_flight_ = 0, most_in_flight_ = 0;
};

class MemoryModel {
 public:
  MemoryModel(const Model& model, const Plan& plan, const Workload& workload,
              const Schedule& schedule, const MemoryOverheads& overheads)
      : plan_(plan),
        schedule_(schedule),
        overheads_(usual_overheads(overheads)),
        layers_(chunk_layers(plan, model.layers)),
        shape_(layer_shape(model, plan, workload.seq_len > 0 ? workload.seq_len : model.max_seq_len,
                           workload.routing)) {
    ensure(static_cast<int>(layers_.size()) == piece_count(schedule),
           "plan and schedule have the same chunks");
  }

  StageMemory stage(int stage) const {
    const std::vector<Action>& actions = schedule_.actions.at(static_cast<std::size_t>(stage));
    StageWalk walk(chunks(stage, 1 - plan_.offload.activations));
    walk.run(actions);
    const double weight_bytes = bytes_of(weight_precision());
    StageMemory memory;
    memory.stage = stage;
    memory.in_flight = walk.most_in_flight();
    const bool own = is_run_here();
    const auto part = [&](const char* name, double bytes) {
      if (bytes > 0) memory.parts.push_back({name, bytes});
    };
    part("weights", weight_bytes * (sharded(stage, weight_shards()) + gathered_parameters(stage)));
    // Products in fp8 hold their weights as they are and transposed beside the 16-bit ones.
    part("fp8 weights", 2 * bytes_of(Precision::Fp8) * whole_share(stage) *
                            sum_over_layers(stage, fp8_parameters_per_rank));
    const double whole_gradients = plan_.offload.gradients ? 0 : sharded(stage, gradient_shards());
    part("gradients",
         bytes_of(plan_.gradient_precision) *
             (whole_gradients + unreduced_parameters(stage) +
              (own && plan_.zero > 0 && sharing_ranks(plan_) > 1 ? owned_parameters(stage) : 0)));
    const bool servers = plan_.updates.aggregation == Aggregation::ParameterServer && plan_.dp > 1;
    part("optimizer", plan_.offload.optimizer || servers ? 0 : optimizer_bytes(stage));
    if (own) {
      const RunnerTensors tensors = runner_tensors(shape_, plan_, schedule_, stage, layers_);
      part("activations", tensors.alive_bytes);
      part("idle buffers", tensors.pooled_bytes - tensors.alive_bytes);
      part("workspace", tensors.scratch_bytes + overheads_.matrix_workspace.bytes);
      part("framework", framework_bytes(plan_, overheads_));
    } else {
      part("activations", walk.peak().activations);
      part("logits and loss", walk.peak().loss);
      part("workspace", walk.peak().workspace);
      // Of two layers, one at work and one on its way.
      part("offload buffers",
           2 * plan_.offload.activations * largest_over_layers(stage, saved_bytes));
      part("pipeline buffers", pipeline_buffer_bytes());
      part("framework", framework_bytes(plan_, overheads_) + overheads_.matrix_workspace.bytes);
    }
    memory.host_bytes = host_bytes(stage, actions);
    return memory;
  }

 private:
  /// Whether the tensors are the runner's, which trains dense models.
  bool is_run_here() const {
    return plan_.framework == Framework::Rehearse && shape_.model.experts.count == 0 &&
           shape_.model.latent.kv_rank == 0 && shape_.model.mtp_layers == 0;
  }

  Precision weight_precision() const {
    return plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision;
  }

  /// Of a stage. fp32 weights are their own master copy.
  double optimizer_bytes(int stage) const {
    const double master = plan_.precision == Precision::Fp32 ? 0 : kMasterBytes;
    return (master + 2 * bytes_of(plan_.moment_precision)) * owned_parameters(stage);
  }
  /// Parameters whose optimizer state a rank holds: of experts, only ranks with copies share.
  double owned_parameters(int stage) const {
    return rehearse::owned_parameters(plan_, stage_parameters(stage),
                                      sum_over_layers(stage, expert_parameters_per_rank));
  }

  /// The host keeps master weights with its moments even where layers compute in fp32.
  double host_bytes(int stage, const std::vector<Action>& actions) const {
    const double owned = owned_parameters(stage);
    double bytes = 0;
    if (plan_.offload.optimizer)
      bytes += (kMasterBytes + 2 * bytes_of(plan_.moment_precision)) * owned;
    if (plan_.offload.gradients) bytes += bytes_of(plan_.gradient_precision) * owned;
    if (plan_.offload.activations > 0) {
      std::vector<ChunkBytes> layers(static_cast<std::size_t>(schedule_.chunks));
      for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
        for_each_layer(stage, chunk, [&](const LayerShape& layer) {
          layers[static_cast<std::size_t>(chunk)].saved +=
              plan_.offload.activations * saved_bytes(layer);
        });
      StageWalk walk(std::move(layers));
      walk.run(actions);
      bytes += walk.peak().activations;
    }
    return bytes;
  }

  /// Parameters of a stage that a rank holds of `shards` shards; of experts, only ranks with copies
  /// of them share, and hold them whole where there is one.
  double sharded(int stage, double shards) const {
    const double parameters = stage_parameters(stage);
    if (shards == 1 || plan_.ep == 1) return parameters / shards;
    const double experts = sum_over_layers(stage, expert_parameters_per_rank);
    return (parameters - experts) / shards + experts / expert_sharing_copies(plan_);
  }
  bool has_lone_experts() const { return plan_.ep > 1 && expert_sharing_copies(plan_) == 1; }
  double weight_shards() const { return plan_.zero >= 3 ? sharing_ranks(plan_) : 1; }
  /// Gradients are kept in shards where each micro-batch's are reduced at once.
  double gradient_shards() const {
    return plan_.zero >= 2 && plan_.reduce_every_micro_batch ? sharing_ranks(plan_) : 1;
  }
  double largest_layer(int stage) const {
    return largest_over_layers(stage, has_lone_experts()
                                          ? +[](const LayerShape& layer) {
                                              return layer_parameters_per_rank(layer) -
                                                     expert_parameters_per_rank(layer);
                                            }
                                          : &layer_parameters_per_rank);
  }
  /// Share of a stage's layers whose weights are whole on a rank: with ZeRO-3 the one at work and
  /// those gathered ahead.
  double whole_share(int stage) const {
    const bool gathers = weight_shards() > 1 && plan_.reshard_after_forward;
    const int all = layer_count(stage);
    return gathers && all > 0 ? std::min(1.0, (1.0 + plan_.prefetch) / all) : 1;
  }
  double largest_unit(int stage) const {
    double largest = largest_layer(stage);
    if (holds_first(stage)) largest = std::max(largest, embedding_parameters_per_rank(shape_));
    if (holds_last(stage))
      largest = std::max(largest, head_parameters_per_rank(shape_, head_has_table()));
    return largest;
  }
  /// ZeRO-3: the layer at work and those gathered ahead; all of the stage's where they stay for
  /// the backward.
  double gathered_parameters(int stage) const {
    if (plan_.zero < 3 || weight_shards() == 1) return 0;
    if (!plan_.reshard_after_forward)
      return stage_parameters(stage) -
             (has_lone_experts() ? sum_over_layers(stage, expert_parameters_per_rank) : 0);
    return largest_unit(stage) + plan_.prefetch * largest_layer(stage);
  }
  /// ZeRO-2, 3: whole gradients of the layer that is being reduced and of the one at work.
  double unreduced_parameters(int stage) const {
    if (gradient_shards() == 1 && !plan_.offload.gradients) return 0;
    return largest_unit(stage) + largest_layer(stage);
  }

  bool is_first(int stage, int chunk) const { return piece_of(schedule_, stage, chunk) == 0; }
  bool is_last(int stage, int chunk) const {
    return piece_of(schedule_, stage, chunk) == piece_count(schedule_) - 1;
  }
  bool holds_first(int stage) const {
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
      if (is_first(stage, chunk)) return true;
    return false;
  }
  bool holds_last(int stage) const {
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
      if (is_last(stage, chunk)) return true;
    return false;
  }
  /// A tied head has a table of its own where another stage has the embedding.
  bool head_has_table() const { return !shape_.model.tied_embeddings || !ends_meet(schedule_); }
  int layers_of(int stage, int chunk) const {
    return layers_.at(static_cast<std::size_t>(piece_of(schedule_, stage, chunk)));
  }
  int layer_count(int stage) const {
    int count = 0;
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
      count += layers_of(stage, chunk) + modules_of(stage, chunk);
    return count;
  }

  /// Modules that predict further tokens; each has a layer.
  int modules_of(int stage, int chunk) const {
    return is_last(stage, chunk) ? shape_.model.mtp_layers : 0;
  }
  /// Layers of a chunk, each with its own shape; those of modules come behind them.
  template <class Visit>
  void for_each_layer(int stage, int chunk, Visit visit) const {
    const int piece = piece_of(schedule_, stage, chunk);
    const int first = std::accumulate(layers_.begin(), layers_.begin() + piece, 0);
    for (int i = 0; i < layers_of(stage, chunk); ++i) visit(shape_of_layer(shape_, first + i, i));
  }
  template <class Visit>
  void for_each_module(int stage, int chunk, Visit visit) const {
    for (int module = 0; module < modules_of(stage, chunk); ++module)
      visit(mtp_layer_shape(shape_, module));
  }
  /// What `of` says of each layer of a stage: its sum and its largest.
  double sum_over_layers(int stage, double (*of)(const LayerShape&)) const {
    double total = 0;
    const auto add = [&](const LayerShape& layer) { total += of(layer); };
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk) {
      for_each_layer(stage, chunk, add);
      for_each_module(stage, chunk, add);
    }
    return total;
  }
  double largest_over_layers(int stage, double (*of)(const LayerShape&)) const {
    double largest = 0;
    const auto compare = [&](const LayerShape& layer) { largest = std::max(largest, of(layer)); };
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk) {
      for_each_layer(stage, chunk, compare);
      for_each_module(stage, chunk, compare);
    }
    return largest;
  }

  double stage_parameters(int stage) const {
    double count = sum_over_layers(stage, layer_parameters_per_rank);
    if (holds_first(stage)) count += embedding_parameters_per_rank(shape_);
    if (!holds_last(stage)) return count;
    count += head_parameters_per_rank(shape_, head_has_table());
    for (int module = 0; module < shape_.model.mtp_layers; ++module)  // its layer is counted above
      count += mtp_parameters_per_rank(shape_, module) -
               layer_parameters_per_rank(mtp_layer_shape(shape_, module));
    if (mtp_has_table(shape_.model, schedule_)) count += table_parameters_per_rank(shape_);
    return count;
  }

  /// `share` of the saved tensors of layers stay on the device.
  std::vector<ChunkBytes> chunks(int stage, double share) const {
    std::vector<ChunkBytes> all;
    for (int c = 0; c < schedule_.chunks; ++c) {
      ChunkBytes chunk;
      const auto add = [&](const LayerShape& layer, double on_device) {
        chunk.saved += on_device * saved_bytes(layer);
        chunk.kept_for_weights += layer_kept_for_weights_bytes(layer);
        chunk.workspace = std::max(chunk.workspace, layer_backward_workspace_bytes(layer));
      };
      for_each_layer(stage, c, [&](const LayerShape& layer) { add(layer, share); });
      for_each_module(stage, c, [&](const LayerShape& layer) { add(layer, 1); });
      if (is_first(stage, c)) chunk.saved += sum(embedding_saved_tensors(shape_));
      if (is_last(stage, c)) {
        // Every module that predicts a further token has a loss of its own.
        const double losses = 1.0 + modules_of(stage, c);
        chunk.head_saved = losses * sum(head_saved_tensors(shape_));
        chunk.head_kept_for_weights = losses * head_kept_for_weights_bytes(shape_);
        for (int module = 0; module < modules_of(stage, c); ++module) {
          chunk.saved += sum(mtp_saved_tensors(shape_, module));
          chunk.kept_for_weights += mtp_kept_for_weights_bytes(shape_);
        }
        chunk.head_workspace = head_workspace_bytes(shape_);
      }
      all.push_back(chunk);
    }
    return all;
  }

  /// One activation arriving and one gradient, for each chunk: interleaved stages post the
  /// receives of the next chunk before they work on this one.
  double pipeline_buffer_bytes() const {
    return schedule_.stages > 1 ? 2 * schedule_.chunks * boundary_bytes(shape_) : 0;
  }

  const Plan& plan_;
  const Schedule& schedule_;
  MemoryOverheads overheads_;
  std::vector<int> layers_;
  LayerShape shape_;
};

}  // namespace

double StageMemory::total_bytes() const {
  double bytes = 0;
  for (const MemoryPart& part : parts) bytes += part.bytes;
  return bytes;
}

std::vector<StageMemory> stage_memory(const Model& model, const Plan& plan,
                                      const Workload& workload, const Schedule& schedule,
                                      const MemoryOverheads& overheads) {
  const MemoryModel memory(model, plan, workload, schedule, overheads);
  std::vector<StageMemory> stages;
  for (int stage = 0; stage < schedule.stages; ++stage) stages.push_back(memory.stage(stage));
  return stages;
}

}  // namespace rehearse
