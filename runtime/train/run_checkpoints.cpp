#include "runtime/train/run_checkpoints.h"

#include <iostream>
#include <stdexcept>

#include "plan/digest.h"
#include "plan/noun_tables.h"
#include "runtime/command_line.h"

namespace rehearse {
namespace {

/// Longer than any disk should take for 64 MiB or for one flush, and shorter than a night.
constexpr double kDiskPatience_s = 1800;

/// The name of a model changes nothing of what it computes.
std::string digest_of(Model model) {
  model.name.clear();
  return digest_text(to_text(model_table().to_json(model), JsonLayout::Compact));
}

std::string layout_text(const Plan& plan) {
  std::string text = "dp " + std::to_string(plan.dp);
  const auto add = [&](const char* name, int value) {
    if (value > 1) text += std::string(", ") + name + " " + std::to_string(value);
  };
  add("tp", plan.tp);
  add("pp", plan.pp);
  add("virtual stages", plan.virtual_stages);
  add("cp", plan.cp);
  if (plan.zero > 0) text += ", zero " + std::to_string(plan.zero);
  return text;
}

std::vector<TensorShard> shards_of(std::vector<TensorPart>& parts) {
  std::vector<TensorShard> shards;
  for (TensorPart& part : parts)
    shards.push_back(
        {part.box.name, part.box.shape, part.box.begin, part.box.extent, part.values.data()});
  return shards;
}

std::string order_text(bool is_shuffled) {
  return is_shuffled ? "a random order" : "the order of the file";
}

/// Why the position in the data of a checkpoint means nothing here, or something else; empty: it
/// means the same.
std::string data_difference(const TrainingState& stored, const TrainingState& own) {
  const auto numbers = [](const char* what, std::int64_t theirs, std::int64_t ours) {
    return std::string("the checkpoint is of ") + what + " " + std::to_string(theirs) + ", not " +
           std::to_string(ours);
  };
  const DataIdentity &theirs = stored.data, &ours = own.data;
  if (theirs.seq_len != ours.seq_len)
    return numbers("sequence length", theirs.seq_len, ours.seq_len);
  if (theirs.global_batch != ours.global_batch)
    return numbers("global batch", theirs.global_batch, ours.global_batch);
  if (theirs.tokens != ours.tokens)
    return "the checkpoint is of a corpus of " + std::to_string(theirs.tokens) +
           " tokens, and this one has " + std::to_string(ours.tokens);
  if (theirs.digest != ours.digest)
    return "the checkpoint is of another corpus of as many tokens (digest " + theirs.digest +
           ", not " + ours.digest + ")";
  if (theirs.is_shuffled != ours.is_shuffled)
    return "the checkpoint took samples in " + order_text(theirs.is_shuffled) + ", not in " +
           order_text(ours.is_shuffled);
  if (stored.seed != own.seed)
    return "the checkpoint is of seed " + std::to_string(stored.seed) + ", not of " +
           std::to_string(own.seed) + ": the order of the samples would change";
  return {};
}

}  // namespace

std::string why_folder_is_taken(const TrainRequest& request) {
  if (request.checkpoint.empty() || request.resume) return {};
  const std::optional<std::int64_t> latest = latest_finished(request.checkpoint);
  if (!latest) return {};
  return request.checkpoint + " has another run's checkpoint, of step " + std::to_string(*latest);
}

RunCheckpoints::RunCheckpoints(const TrainRequest& request, const PlanFile& file,
                               const Corpus& corpus, Trainer& trainer)
    : request_(request), trainer_(trainer), crew_(trainer, kDiskPatience_s) {
  if (request.checkpoint.empty()) return;
  own_.seed = request.options.seed;
  own_.plan_digest = digest_text(write_plan_file(file));
  own_.layout = layout_text(file.plan);
  own_.model_digest = digest_of(file.model);
  own_.data = {.tokens = corpus.tokens,
               .digest = "",
               .seq_len = file.workload.seq_len,
               .global_batch = file.workload.global_batch,
               .is_shuffled = request.options.partition == Partition::Random};
  // The first rank writes the manifest, and compares.
  crew_.together([&](const CheckpointCrew::Beat&) {
    if (crew_.rank() == 0) own_.data.digest = corpus_digest(corpus, file.workload.seq_len);
  });
}

TrainingState RunCheckpoints::state() const {
  TrainingState state = own_;
  state.step = trainer_.next_step();
  const LearningRate::State& rate = trainer_.rate().state();
  state.scalars = {{"rate_factor", rate.factor},
                   {"rate_best_loss", rate.best_loss},
                   {"rate_mean_loss", rate.mean_loss},
                   {"rate_since_best", static_cast<double>(rate.since_best)},
                   {"rate_observed", static_cast<double>(rate.observed)}};
  return state;
}

void RunCheckpoints::save() {
  std::vector<TensorPart> parts = trainer_.state_share();
  const TrainingState state = this->state();
  save_checkpoint(request_.checkpoint, state, shards_of(parts), crew_);
  crew_.together([&](const CheckpointCrew::Beat&) {
    if (crew_.rank() == 0) remove_old_checkpoints(request_.checkpoint, state.step, kKept);
  });
  saved_step_ = state.step;
}

std::optional<std::int64_t> RunCheckpoints::last_good() {
  const LastGood last = find_last_good(request_.checkpoint, crew_);
  // Whoever asked to go on did not mean to begin again.
  if (!last.step && !last.passed_steps.empty())
    throw std::runtime_error("there is no whole checkpoint in " + request_.checkpoint + ": " +
                             last.passed_over.front());
  crew_.together([&](const CheckpointCrew::Beat&) {
    if (crew_.rank() != 0) return;
    for (const std::string& fault : last.passed_over)
      std::cerr << "rehearse-device: a checkpoint is passed over: " << fault << '\n';
    for (const std::int64_t step : last.passed_steps)
      std::cerr << "rehearse-device: it is kept as "
                << set_aside(request_.checkpoint, step).string() << '\n';
  });
  return last.step;
}

void RunCheckpoints::check(const TrainingState& stored) {
  std::string difference;
  if (crew_.rank() == 0) {
    difference = stored.model_digest != own_.model_digest ? "the checkpoint is of another model"
                                                          : data_difference(stored, own_);
    if (difference.empty() && stored.plan_digest != own_.plan_digest)
      std::cerr << "rehearse-device: the checkpoint is of another plan (" << stored.layout
                << "); its state is laid out for this one (" << own_.layout << ")\n";
  }
  difference = crew_.from_first(difference);
  if (!difference.empty())
    throw ArgumentError(difference,
                        "give what it was written with, or begin anew in another --checkpoint");
}

void RunCheckpoints::resume() {
  const std::optional<std::int64_t> step = last_good();
  if (!step) return;
  const std::filesystem::path folder = step_folder(request_.checkpoint, *step);
  const TrainingState state = read_training_state(folder);
  check(state);
  std::vector<TensorPart> parts = trainer_.state_parts();
  const std::vector<TensorShard> shards = shards_of(parts);
  crew_.together([&](const CheckpointCrew::Beat& beat) { load_checkpoint(folder, shards, beat); });
  trainer_.restore_parts(parts);
  trainer_.set_next_step(state.step);
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

}  // namespace rehearse
