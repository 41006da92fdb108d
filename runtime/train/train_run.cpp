#include "runtime/train/train_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <stdexcept>

#include "plan/ensure.h"
#include "runtime/train/corpus.h"
#include "runtime/train/rank_memory.h"
#include "runtime/train/run_checkpoints.h"
#include "runtime/train/step_recorder.h"
#include "runtime/train/warm_up.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

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

double TrainResult::mfu() const {
  const double step_s = median_step_s();
  return step_s > 0 && peak.flops_per_s > 0 ? model_flops / (step_s * ranks * peak.flops_per_s) : 0;
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
                  corpus.reader,
                  world.moves_on_device() ? warmed_pool(file, options, world, device) : nullptr);
  if (recorder) recorder->attach(trainer);
  RunCheckpoints checkpoints(request, file, corpus, trainer);
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
  trainer.finish();
  const std::vector<double> memory = peak_memory(trainer, device);
  if (recorder) {
    recorder->set_memory(rank_memory(world.rank(), trainer.groups().at.pipeline, memory));
    recorder->write(request.timeline, file.title);
  }
  result.traffic_bytes = trainer.traffic_of_all();
  result.memory = trainer.from_all_ranks(memory);
  result.model_flops = training_flops(file.model, result.tokens_per_step, file.workload.seq_len,
                                      AttentionCount::CausalHalf);
  if (world.rank() == 0)
    result.peak =
        device_peak(device, file.plan.precision == Precision::Fp32 ? DType::F32 : DType::Bf16);
  result.data = counts_of_all(trainer, file, result);
  result.partition = options.partition;
  result.samples_per_epoch = trainer.batches().samples_per_epoch();
  if (!request.checkpoint.empty() && checkpoints.saved_step() != trainer.next_step())
    checkpoints.save();
  world.end();
  return result;
}

}  // namespace rehearse
