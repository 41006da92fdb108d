// Peak memory of each stage, from three sources:
//   states       ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): weights, gradients, and for
//                Adam a master copy and two moments in fp32; ZeRO-1 shards the latter over data
//                ranks. With fp32 gradients 18 bytes a parameter, sharded 6 + 12/N, as
//                Megatron-LM's theoretical_memory_usage.py counts.
//   activations  the saved tensors of kernels/layer_memory.cpp for every micro-batch in flight,
//                found by walking the schedule: the peak is at one moment, and so are its parts.
//   the rest     receive buffers between stages, and what context, libraries and communicators
//                take before the first tensor.

#include "strategies/memory.h"

#include <algorithm>

#include "kernels/layer.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
/// CUDA context with the kernels of a framework loaded lazily: 400 to 600 MiB on A100 and H100.
constexpr double kContextBytes = 500 * kMiB;
/// cuBLAS' recommended workspace from Hopper on (cuBLAS documentation, cublasSetWorkspace).
constexpr double kMatrixWorkspaceBytes = 32 * kMiB;
/// NCCL's buffers of a communicator of 2 GPUs, and of 4 to 8: system files of
/// ai-dynamo/aiconfigurator, commit 095f58a5.
constexpr double kPairCommunicatorBytes = 342 * kMiB, kCommunicatorBytes = 392 * kMiB;

constexpr double kMasterBytes = 4, kMomentBytes = 4;

double sum(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

double communicator_bytes(int ranks) {
  if (ranks < 2) return 0;
  return ranks == 2 ? kPairCommunicatorBytes : kCommunicatorBytes;
}

double framework_bytes(const Plan& plan) {
  return kContextBytes + kMatrixWorkspaceBytes + communicator_bytes(plan.tp) +
         communicator_bytes(plan.cp) + communicator_bytes(plan.dp) + communicator_bytes(plan.pp);
}

/// Bytes of the tensors of one chunk of the model.
struct ChunkBytes {
  double saved = 0;           ///< of layers and embedding, for one micro-batch
  double head_saved = 0;      ///< final norm, logits
  double workspace = 0;       ///< beside them in a layer's backward
  double head_workspace = 0;  ///< beside them in the loss
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
    const bool split = std::any_of(actions.begin(), actions.end(), [](const Action& action) {
      return action.kind == ActionKind::WeightGradient;
    });
    for (const Action& action : actions) {
      const ChunkBytes& chunk = chunks_.at(static_cast<std::size_t>(action.chunk));
      if (action.kind == ActionKind::Forward) {
        forward(chunk);
      } else {
        backward(chunk, !split || action.kind == ActionKind::WeightGradient);
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
  /// gradients are at work.
  void backward(const ChunkBytes& chunk, bool frees) {
    consider(chunk.head_workspace, 0);
    if (frees) now_.loss -= chunk.head_saved;
    consider(0, chunk.workspace);
    if (!frees) return;
    now_.activations -= chunk.saved;
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
              const Schedule& schedule)
      : plan_(plan),
        schedule_(schedule),
        layers_(chunk_layers(plan, model.layers)),
        shape_(
            layer_shape(model, plan, workload.seq_len > 0 ? workload.seq_len : model.max_seq_len)) {
    ensure(static_cast<int>(layers_.size()) == schedule.stages * schedule.chunks,
           "plan and schedule have the same chunks");
  }

  StageMemory stage(int stage) const {
    StageWalk walk(chunks(stage));
    walk.run(schedule_.actions.at(static_cast<std::size_t>(stage)));
    const double parameters = stage_parameters(stage);
    const double weight_bytes = bytes_of(weight_precision());
    StageMemory memory;
    memory.stage = stage;
    memory.in_flight = walk.most_in_flight();
    const auto part = [&](const char* name, double bytes) {
      if (bytes > 0) memory.parts.push_back({name, bytes});
    };
    part("weights", weight_bytes * parameters);
    // Layers in fp8 hold their weights as they are and transposed beside the 16-bit ones.
    if (plan_.precision == Precision::Fp8)
      part("fp8 weights",
           2 * bytes_of(Precision::Fp8) * layer_count(stage) * layer_parameters_per_rank(shape_));
    part("gradients", bytes_of(plan_.gradient_precision) * parameters);
    part("optimizer", optimizer_bytes() * parameters);
    part("activations", walk.peak().activations);
    part("logits and loss", walk.peak().loss);
    part("workspace", walk.peak().workspace);
    part("pipeline buffers", pipeline_buffer_bytes());
    part("framework", framework_bytes(plan_));
    return memory;
  }

 private:
  Precision weight_precision() const {
    return plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision;
  }

  /// Of each parameter. fp32 weights are their own master copy.
  double optimizer_bytes() const {
    const double master = plan_.precision == Precision::Fp32 ? 0 : kMasterBytes;
    const double shards = plan_.zero >= 1 ? static_cast<double>(plan_.dp) * plan_.cp : 1;
    return (master + 2 * kMomentBytes) / shards;
  }

  bool is_first(int stage, int chunk) const { return stage == 0 && chunk == 0; }
  bool is_last(int stage, int chunk) const {
    return stage == schedule_.stages - 1 && chunk == schedule_.chunks - 1;
  }
  int layers_of(int stage, int chunk) const {
    return layers_.at(static_cast<std::size_t>(chunk * schedule_.stages + stage));
  }
  int layer_count(int stage) const {
    int count = 0;
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk) count += layers_of(stage, chunk);
    return count;
  }

  double stage_parameters(int stage) const {
    double count = layer_count(stage) * layer_parameters_per_rank(shape_);
    if (stage == 0) count += embedding_parameters_per_rank(shape_);
    if (stage == schedule_.stages - 1)
      count +=
          head_parameters_per_rank(shape_, !shape_.model.tied_embeddings || schedule_.stages > 1);
    return count;
  }

  std::vector<ChunkBytes> chunks(int stage) const {
    std::vector<ChunkBytes> all;
    for (int c = 0; c < schedule_.chunks; ++c) {
      const int layers = layers_of(stage, c);
      ChunkBytes chunk;
      chunk.saved = layers * sum(layer_saved_tensors(shape_));
      chunk.workspace = layers > 0 ? layer_backward_workspace_bytes(shape_) : 0;
      if (is_first(stage, c)) chunk.saved += sum(embedding_saved_tensors(shape_));
      if (is_last(stage, c)) {
        chunk.head_saved = sum(head_saved_tensors(shape_));
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
                                      const Workload& workload, const Schedule& schedule) {
  const MemoryModel memory(model, plan, workload, schedule);
  std::vector<StageMemory> stages;
  for (int stage = 0; stage < schedule.stages; ++stage) stages.push_back(memory.stage(stage));
  return stages;
}

}  // namespace rehearse
