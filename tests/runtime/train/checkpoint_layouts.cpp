// Checkpoints of one layout that another goes on from: each rank also trains the whole model by
// itself, without a break, and compares what it loads and how it goes on with that.
//
//   train_parity write=FOLDER KEY=VALUE…        trains three steps and writes a checkpoint
//   train_parity slow=SECONDS deadline=SECONDS  the second rank's disk is slower than any deadline
//   train_parity read=FOLDER:FOLDER… KEY=VALUE… goes on from each of them for three steps more
#include <chrono>
#include <thread>

#include "runtime/checkpoint_manifest.h"
#include "runtime/train/run_checkpoints.h"
#include "tests/runtime/train/small_runs.h"

namespace rehearse {
namespace {

constexpr int kBreak = 3, kSteps = 6;

TrainOptions options() {
  TrainOptions options;
  options.rate = {.kind = RateKind::Cosine, .peak = 3e-3, .warmup_steps = 2, .total_steps = kSteps};
  return options;
}

TrainRequest request_for(const std::string& folder, bool resume) {
  TrainRequest request;
  request.options = options();
  request.checkpoint = folder;
  request.resume = resume;
  return request;
}

Corpus corpus_of(const PlanFile& file) {
  return {.tokens = kCorpus, .vocab = 100, .reader = made_up_text(file.workload.seq_len)};
}

/// A run with the device and the data that it needs.
struct SmallRun {
  SmallRun(const Words& words, World& world)
      : file(plan_of(words)),
        corpus(corpus_of(file)),
        device(cpu_device(1)),
        trainer(file, options(), world, *device, kCorpus, corpus.reader) {}

  std::vector<double> steps(int count) {
    std::vector<double> losses;
    for (int i = 0; i < count; ++i) losses.push_back(trainer.step().loss);
    trainer.finish();
    return losses;
  }

  PlanFile file;
  Corpus corpus;
  std::unique_ptr<ComputeDevice> device;
  Trainer trainer;
};

/// The same model on one rank.
Words alone(const Words& words) {
  Words out;
  for (const char* name : {"model", "layers"})
    if (words.count(name) != 0) out[name] = words.at(name);
  return out;
}

void compare_parts(const std::string& what, const std::vector<TensorPart>& parts,
                   const std::vector<TensorPart>& whole) {
  const TensorsByName tensors = by_name(whole);
  for (const TensorPart& part : parts) {
    // A key bias has no gradient but rounding, which another layout rounds in another way.
    if (part.box.name.find("key.bias") != std::string::npos) continue;
    const Difference difference = compare(part, *tensors.at(part.box.name));
    const double apart = std::sqrt(difference.squared);
    const double size = std::sqrt(difference.whole_squared);
    expect(apart <= 1e-4 * size + 1e-12, what + ": " + part.box.name + " is " +
                                             std::to_string(apart / size) + " of its norm apart");
  }
}

/// The steps behind the break change every tensor by far more than what is allowed for: with other
/// weights or moments they would end elsewhere.
void expect_to_move(const std::vector<TensorPart>& end, const std::vector<TensorPart>& state) {
  const TensorsByName before = by_name(state);
  for (const TensorPart& part : end) {
    const Difference difference = compare(part, *before.at("weight/" + part.box.name));
    expect(difference.squared > 1e-6 * difference.whole_squared,
           part.box.name + " hardly moves in the steps that are compared");
  }
}

void compare_losses(const std::string& what, const std::vector<double>& mine,
                    const std::vector<double>& whole, double tolerance) {
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const double expected = whole[whole.size() - mine.size() + i];
    expect(std::abs(mine[i] - expected) <= tolerance * expected,
           what + ": loss " + std::to_string(mine[i]) + " for " + std::to_string(expected));
  }
}

/// Numbers in the files of a checkpoint, and those of its fullest file.
struct StoredNumbers {
  std::int64_t all = 0, fullest = 0;
};
StoredNumbers stored_numbers(const std::string& root, int files) {
  StoredNumbers numbers;
  for (int rank = 0; rank < files; ++rank) {
    std::int64_t own = 0;
    const ShardFile file(shard_path(step_folder(root, kBreak), rank));
    for (const StoredShard& shard : file.shards()) own += shard.box.elements();
    numbers.all += own;
    numbers.fullest = std::max(numbers.fullest, own);
  }
  return numbers;
}

}  // namespace

void write_layout(World& world, const Words& words) {
  const std::string root = words.at("write");
  SmallRun run(words, world);
  const TrainRequest request = request_for(root, false);
  RunCheckpoints checkpoints(request, run.file, run.corpus, run.trainer);
  run.steps(kBreak);
  checkpoints.save();
  if (world.rank() != 0) return;
  const auto one = lone_world();
  SmallRun whole(alone(words), *one);
  std::int64_t once = 0;
  for (const TensorPart& part : whole.trainer.state_parts()) once += part.box.elements();
  const StoredNumbers stored = stored_numbers(root, world.size());
  expect(stored.all == once,
         std::to_string(stored.all) + " numbers are stored, the state has " + std::to_string(once));
  // Ranks that hold the same write as much, but for rows that pad the vocabulary.
  if (world.size() == run.file.plan.dp * run.file.plan.cp && run.file.plan.zero == 0)
    expect(stored.fullest <= once / world.size() * 11 / 10, "a replica writes more than its share");
}

void wait_for_disk(World& world, const Words& words) {
  SmallRun run(words, world);
  DiskCrew crew(run.trainer, 600);
  const TrafficCount before = run.trainer.traffic();
  bool is_done = false;
  crew.together([&](const CheckpointCrew::Beat&) {
    if (crew.rank() == 1)
      std::this_thread::sleep_for(std::chrono::seconds(number(words, "slow", 0)));
    is_done = true;
  });
  expect(is_done, "a rank goes on before its work is done");
  const std::vector<std::string> texts =
      crew.texts(std::string(1000, 'a') + (crew.rank() == 1 ? "é" : ""));
  expect(texts.front() == std::string(1000, 'a') && texts.back() == std::string(1000, 'a') + "é",
         "texts are not what the ranks gave");
  expect(run.trainer.traffic().of(Traffic::Report) == before.of(Traffic::Report),
         "what ranks tell each other counts as traffic of a step");
}

void read_layouts(World& world, const Words& words) {
  const auto one = lone_world();
  SmallRun whole(alone(words), *one);
  std::vector<double> expected = whole.steps(kBreak);
  const std::vector<TensorPart> state = whole.trainer.state_parts();
  const std::vector<double> rest = whole.steps(kSteps - kBreak);
  expected.insert(expected.end(), rest.begin(), rest.end());
  const std::vector<TensorPart> end = whole.trainer.tensors(TensorKind::Weight);
  expect_to_move(end, state);

  const std::vector<double> own = SmallRun(words, world).steps(kSteps);
  std::istringstream folders(words.at("read"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    SmallRun run(words, world);
    const TrainRequest request = request_for(folder, true);
    RunCheckpoints checkpoints(request, run.file, run.corpus, run.trainer);
    checkpoints.resume();
    expect(run.trainer.next_step() == kBreak, folder + ": it does not go on where it stopped");
    compare_parts(folder + ", as loaded", run.trainer.state_parts(), state);
    const std::vector<double> losses = run.steps(kSteps - kBreak);
    compare_losses(folder, losses, expected, 1e-4);
    compare_parts(folder + ", at the end", run.trainer.tensors(TensorKind::Weight), end);
    const auto slash = folder.rfind('/');
    if (folder.substr(slash + 1) == word(words, "name", "")) compare_losses(folder, losses, own, 0);
  }
}

}  // namespace rehearse
