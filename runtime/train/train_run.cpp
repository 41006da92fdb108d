#include "runtime/train/train_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <stdexcept>

#include "plan/digest.h"
#include "plan/ensure.h"
#include "runtime/checkpoint.h"
#include "runtime/train/corpus.h"
#include "runtime/train/step_recorder.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Weights, moments and what the schedule of the rate remembers, in and out of checkpoints.
class Checkpoints {
 public:
  Checkpoints(const TrainRequest& request, const PlanFile& file, World& world, Trainer& trainer)
      : request_(request),
        trainer_(trainer),
        rank_(world.rank()),
        ranks_(world.size()),
        digest_(digest_text(write_plan_file(file))) {}

  void save() {
    std::vector<TensorPart> parts = trainer_.state_parts();
    TrainingState state;
    state.step = trainer_.next_step();
    state.seed = request_.options.seed;
    state.plan_digest = digest_;
    const LearningRate::State& rate = trainer_.rate().state();
    state.scalars = {{"rate_factor", rate.factor},
                     {"rate_best_loss", rate.best_loss},
                     {"rate_mean_loss", rate.mean_loss},
                     {"rate_since_best", static_cast<double>(rate.since_best)},
                     {"rate_observed", static_cast<double>(rate.observed)}};
    const std::vector<TensorShard> shards = shards_of(parts);
    save_checkpoint(request_.checkpoint, rank_, ranks_, state, shards,
                    [this] { trainer_.groups().world->barrier(); });
    if (rank_ == 0) remove_old_checkpoints(request_.checkpoint, kKept);
    saved_step_ = state.step;
  }

  /// Goes on from the last good checkpoint, if there is one.
  void resume() {
    const std::int64_t step = agreed_step();
    if (step < 0) return;
    std::vector<TensorPart> parts = trainer_.state_parts();
    const std::vector<TensorShard> shards = shards_of(parts);
    const TrainingState state = load_checkpoint(folder_of(step), shards);
    trainer_.restore_parts(parts);
    trainer_.set_next_step(state.step);
    if (state.seed != request_.options.seed)
      throw std::runtime_error("the checkpoint is of seed " + std::to_string(state.seed) +
                               ", not of " + std::to_string(request_.options.seed) +
                               ": the order of the samples would change");
    LearningRate::State rate;
    for (const auto& [name, value] : state.scalars) {
      if (name == "rate_factor") rate.factor = value;
      if (name == "rate_best_loss") rate.best_loss = value;
      if (name == "rate_mean_loss") rate.mean_loss = value;
      if (name == "rate_since_best") rate.since_best = static_cast<std::int64_t>(value);
      if (name == "rate_observed") rate.observed = static_cast<std::int64_t>(value);
    }
    trainer_.rate().restore(rate);
    saved_step_ = state.step;
  }

  std::int64_t saved_step() const { return saved_step_; }

 private:
  static constexpr int kKept = 2;  ///< so that one is whole while the next is written

  static std::vector<TensorShard> shards_of(std::vector<TensorPart>& parts) {
    std::vector<TensorShard> shards;
    for (TensorPart& part : parts)
      shards.push_back(
          {part.box.name, part.box.shape, part.box.begin, part.box.extent, part.values.data()});
    return shards;
  }

  std::filesystem::path folder_of(std::int64_t step) const {
    std::string digits = std::to_string(step);
    digits.insert(0, 8 - std::min<std::size_t>(8, digits.size()), '0');
    return std::filesystem::path(request_.checkpoint) / ("step-" + digits);
  }

  /// The first rank looks for the last good one and tells the others; −1 for none. Where there are
  /// finished ones but none is whole, whoever asked to go on did not mean to begin again.
  std::int64_t agreed_step() {
    double step = 0;
    if (rank_ == 0) {
      const LastGood last = find_last_good(request_.checkpoint);
      if (!last.checkpoint && last.some_finished)
        throw std::runtime_error("there is no whole checkpoint in " + request_.checkpoint + ": " +
                                 last.passed_over.front());
      for (const std::string& fault : last.passed_over)
        std::cerr << "rehearse-device: a checkpoint is passed over: " << fault << '\n';
      step =
          last.checkpoint ? static_cast<double>(read_training_state(*last.checkpoint).step) : -1.0;
    }
    return static_cast<std::int64_t>(trainer_.sum_over_world(step));
  }

  const TrainRequest& request_;
  Trainer& trainer_;
  int rank_, ranks_;
  std::string digest_;
  std::int64_t saved_step_ = -1;
};

void check_corpus(const Corpus& corpus, const PlanFile& file, const std::string& path) {
  if (corpus.vocab > file.model.vocab)
    throw std::runtime_error(path + " has tokens up to " + std::to_string(corpus.vocab - 1) +
                             ", but the model's vocabulary is " + std::to_string(file.model.vocab));
  const std::string fault = batch_fault(batch_spec(file, {}, corpus.tokens));
  if (!fault.empty()) throw std::runtime_error(path + ": " + fault);
}

/// What each rank worked on. One rank of each replica and each place in its context group together
/// have had every token of every step, once.
std::vector<DataCount> counts_of_all(Trainer& trainer, const PlanFile& file,
                                     const TrainResult& result) {
  const DataCount& own = trainer.data_count();
  std::vector<DataCount> counts;
  std::int64_t tokens = 0;
  const RankMap map(file.plan);
  for (const std::vector<double>& rank : trainer.from_all_ranks(
           {static_cast<double>(own.samples), static_cast<double>(own.tokens)})) {
    const Coordinates at = map.coordinates(Rank{static_cast<int>(counts.size())});
    counts.push_back({std::llround(rank[0]), std::llround(rank[1])});
    if (at.tensor == 0 && at.pipeline == 0) tokens += counts.back().tokens;
  }
  const std::int64_t of_steps = std::int64_t{file.workload.global_batch} * file.workload.seq_len *
                                static_cast<std::int64_t>(result.steps.size());
  ensure(tokens == of_steps, "ranks together compute each token of a step once");
  return counts;
}

}  // namespace

std::int64_t steps_of(const TrainRequest& request, const PlanFile& file) {
  if (request.steps > 0) return request.steps;
  const double per_step = static_cast<double>(file.workload.global_batch) * file.workload.seq_len;
  if (file.workload.tokens > 0)
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(file.workload.tokens / per_step));
  return 100;
}

double TrainResult::median_step_s() const {
  if (step_times_s.empty()) return 0;
  std::vector<double> sorted = step_times_s;
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

TrainResult run_training(const TrainRequest& request, const PlanFile& file, World& world,
                         ComputeDevice& device,
                         const std::function<void(const StepReport&, double step_s)>& progress) {
  const Corpus corpus = open_corpus(request.data, file.workload.seq_len);
  const std::string name = request.data.empty() ? kShippedTextName : request.data;
  if (request.data.empty() && world.rank() == 0)
    std::cerr << "rehearse-device: no --data, so it is " << name << ", which ships with it ("
              << corpus.tokens << " bytes, each a token)\n";
  check_corpus(corpus, file, name);
  TrainOptions options = request.options;
  options.rate.total_steps = steps_of(request, file);
  if (request.reference_batch > 0)
    options.rate.peak = scaled_rate(options.rate.peak, request.reference_batch,
                                    static_cast<double>(file.workload.global_batch));
  std::optional<StepRecorder> recorder;  // outlives the trainer, which computes on its device
  if (!request.timeline.empty()) recorder.emplace(file, world.rank(), device);
  Trainer trainer(file, options, world, recorder ? recorder->device() : device, corpus.tokens,
                  corpus.reader);
  if (recorder) recorder->attach(trainer);
  Checkpoints checkpoints(request, file, world, trainer);
  if (request.resume) checkpoints.resume();
  TrainResult result;
  result.tokens_per_step = trainer.tokens_per_step();
  result.ranks = world.size();
  while (trainer.next_step() < options.rate.total_steps) {
    trainer.clear_traffic();
    const auto begin = Clock::now();
    if (recorder) recorder->begin_step(trainer.next_step());
    const StepReport report = trainer.step();
    if (recorder) recorder->end_step();
    const double step_s = seconds_since(begin);
    result.steps.push_back(report);
    result.step_times_s.push_back(step_s);
    if (world.rank() == 0 && progress) progress(report, step_s);
    const bool is_due =
        request.checkpoint_every > 0 && trainer.next_step() % request.checkpoint_every == 0;
    if (!request.checkpoint.empty() && is_due) checkpoints.save();
  }
  if (recorder) recorder->write(request.timeline, file.title);
  result.traffic_bytes = trainer.traffic_of_all();
  result.data = counts_of_all(trainer, file, result);
  result.partition = options.partition;
  result.samples_per_epoch = trainer.batches().samples_per_epoch();
  if (!request.checkpoint.empty() && checkpoints.saved_step() != trainer.next_step())
    checkpoints.save();
  return result;
}

}  // namespace rehearse
