#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "plan/plan_file.h"
#include "runtime/data/batches.h"
#include "runtime/train/learning_rate.h"
#include "runtime/train/model_chunk.h"
#include "runtime/train/optimizer.h"
#include "runtime/train/pipeline_mail.h"

namespace rehearse {

/// Tokens of a range of a sample, and the label of each: runtime/data/batches.h, or a test's.
using SampleReader =
    std::function<void(std::int64_t sample, TokenRange range, std::span<std::int32_t> tokens,
                       std::span<std::int32_t> labels)>;

struct TrainOptions {
  std::uint64_t seed = 1;  ///< of the initial weights and of a random order of the samples
  RateOptions rate;
  AdamOptions adam;
  Partition partition = Partition::Random;
};

struct StepReport {
  std::int64_t step = 0;  ///< from 0
  double loss = 0;        ///< mean over the tokens of the step, before the update
  double gradient_norm = 0;
  double rate = 0;
};

/// What a rank has worked on.
struct DataCount {
  std::int64_t samples = 0;  ///< of which it has had tokens
  std::int64_t tokens = 0;   ///< of them, that it computes
};

/// Part of a tensor that this rank holds, in the host's memory.
struct TensorPart {
  NamedBox box;
  std::vector<float> values;
};
enum class TensorKind : std::uint8_t { Weight, Gradient };

/// One rank of a training run: the plan's layout, and the plan's schedule executed literally.
class Trainer {
 public:
  /// `corpus_tokens`: what BatchPlan deals out. `pool`: memory to use, of the same device; empty:
  /// its own. REQUIRES: the plan is runnable, and the world is as large as the plan. All ranks
  /// construct theirs together.
  Trainer(const PlanFile& file, const TrainOptions& options, World& world, ComputeDevice& device,
          std::int64_t corpus_tokens, SampleReader reader,
          std::shared_ptr<TensorPool> pool = nullptr);

  /// One step of training. Throws CommunicationError, and std::runtime_error where the loss is no
  /// number any more.
  StepReport step();
  /// Returns when nothing of the last step is under way any more, which would otherwise write to
  /// memory that is gone with the trainer. All ranks call it after their last step.
  void finish();
  std::int64_t next_step() const { return step_; }

  /// The parts of all tensors that this rank updates. Gradients are those of the last step, before
  /// clipping.
  std::vector<TensorPart> tensors(TensorKind kind);

  /// All that a checkpoint needs: weights as the optimizer holds them, and both moments, under the
  /// names "weight/…", "moment1/…" and "moment2/…". What was loaded into them goes back by
  /// `restore_parts`, on all ranks together.
  std::vector<TensorPart> state_parts();
  /// This rank's share of them to write: the shares of all ranks are the whole state, each element
  /// once, and ranks that hold the same share it evenly.
  std::vector<TensorPart> state_share();
  void restore_parts(const std::vector<TensorPart>& parts);

  /// The sum of a number of each rank.
  double sum_over_world(double value);
  /// The numbers of every rank, [rank]. All give as many.
  std::vector<std::vector<double>> from_all_ranks(const std::vector<double>& mine);
  /// Bytes that each rank gave to its communicators, [rank][Traffic].
  std::vector<std::vector<double>> traffic_of_all();

  /// Counted as micro-batches go forward, since the trainer was made.
  const DataCount& data_count() const { return data_count_; }
  const BatchPlan& batches() const { return batches_; }
  const TrafficCount& traffic() const { return traffic_; }
  void clear_traffic() { traffic_.clear(); }
  void restore_traffic(const TrafficCount& counted) { traffic_ = counted; }
  double tokens_per_step() const;
  std::int64_t parameters() const { return store_->parameter_count(); }
  /// What a stage sends another of a micro-batch.
  std::size_t message_bytes() const;
  std::size_t allocated_bytes() const { return pool_->allocated_bytes(); }
  std::size_t most_alive_bytes() const { return pool_->most_alive_bytes(); }
  RankGroups& groups() { return *groups_; }
  ParameterStore& store() { return *store_; }
  const Schedule& schedule() const { return schedule_; }
  LearningRate& rate() { return rate_; }
  void set_next_step(std::int64_t step) { step_ = step; }
  /// What happens before each action of the schedule, for records.
  std::function<void(const Action&)> on_action;
  /// What happens before the operators of a unit, and after those of the last action.
  std::function<void(const Unit&)> on_unit;
  std::function<void()> on_actions_done;

 private:
  void make_units();
  void make_chunks();
  MicroBatch read_micro_batch(int micro_batch);
  const MicroBatch& data_of(int micro_batch);
  void execute(const Action& action);
  double step_loss();
  using PieceView = std::function<TensorView(const OwnedPiece&)>;
  void collect(const std::vector<OwnedPiece>& pieces, const PieceView& view,
               const std::string& prefix, std::vector<TensorPart>& parts);
  std::vector<TensorPart> collect_state(const std::vector<OwnedPiece>& pieces);
  std::vector<OwnedPiece> written_pieces() const;

  PlanFile file_;
  TrainOptions options_;
  Schedule schedule_;
  World& world_;
  ComputeDevice& device_;
  SampleReader reader_;
  TrafficCount traffic_;
  BatchPlan batches_;
  LearningRate rate_;
  std::shared_ptr<TensorPool> pool_;
  std::unique_ptr<ParameterStore> store_;
  /// Goes before the memory: where a step fails, that is how transfers under way are ended, for
  /// which a GPU would else wait when memory is given back.
  std::unique_ptr<RankGroups> groups_;
  std::optional<RankContext> rank_;
  std::optional<SequenceTables> tables_;
  std::vector<ModelChunk> chunks_;
  std::optional<PipelineMail> mail_;
  std::optional<GradientSync> sync_;
  std::optional<Optimizer> optimizer_;
  Tensor loss_scale_;
  std::map<int, MicroBatch> data_;
  std::set<int> seen_;  ///< micro-batches of the step that have gone forward
  DataCount data_count_;
  std::vector<std::int64_t> samples_;
  std::int64_t step_ = 0;
};

/// How the plan's replicas share the samples of a step.
BatchSpec batch_spec(const PlanFile& file, const TrainOptions& options, std::int64_t corpus_tokens);

/// Parameters in a bucket of gradients: the plan's bytes, or Megatron-LM's max(40 M, 1 M · dp).
double bucket_parameters(const Plan& plan);

}  // namespace rehearse
