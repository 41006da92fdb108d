#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/checkpoint_crew.h"

namespace rehearse {

/// A box of a tensor that a rank holds, in row-major order. Tensors are known by name; boxes of
/// several ranks may overlap (replicas), and then hold the same numbers.
struct TensorShard {
  std::string name;
  std::vector<std::int64_t> shape;          ///< of the whole tensor
  std::vector<std::int64_t> begin, extent;  ///< this rank's box, as many dimensions as `shape`
  float* data = nullptr;                    ///< product of `extent` numbers
};

/// What the position in the data follows from, beside the step. Goes on only with the same.
struct DataIdentity {
  std::int64_t tokens = 0;        ///< of the corpus
  std::string digest;             ///< of its tokens
  std::int64_t seq_len = 0;       ///< a sample is as long
  std::int64_t global_batch = 0;  ///< samples of a step
  bool is_shuffled = false;       ///< in a random order, by the seed; else in that of the file
  bool operator==(const DataIdentity&) const = default;
};

/// What a run needs beside its tensors to go on bit for bit. The position in the data follows from
/// the step (runtime/data/batches.h), random numbers from the seed and the step.
struct TrainingState {
  std::int64_t step = 0;  ///< steps done
  std::uint64_t seed = 0;
  std::string plan_digest;        ///< of the plan that wrote it; another layout may load it
  std::string layout = {};        ///< that plan's, for people
  std::string model_digest = {};  ///< tensors of the same shapes may mean another computation
  DataIdentity data = {};
  /// Named numbers, such as those of an adaptive learning rate; they come back bit for bit,
  /// infinities and NaN as such.
  std::vector<std::pair<std::string, double>> scalars;
};

/// The folder of the checkpoint of a step.
std::filesystem::path step_folder(const std::filesystem::path& root, std::int64_t step);

/// A checkpoint of step 1200 is the folder ROOT/step-00001200: rank-00000.shards, … one a rank, and
/// manifest.json, written last: a folder without it is unfinished and never read. All ranks of the
/// crew call this; it returns when the checkpoint is whole. Files come into being whole or not at
/// all and are flushed to the disk, and so are the folders that hold them. Throws
/// std::runtime_error where they cannot be written; the checkpoints before are then as they were.
void save_checkpoint(const std::filesystem::path& root, const TrainingState& state,
                     std::span<const TensorShard> shards, CheckpointCrew& crew);

/// Fills every shard from whatever boxes the files of a checkpoint hold: any layout loads into any
/// other. `checkpoint` is one step's folder. Throws std::runtime_error with a sentence where a file
/// is missing, cut off or damaged, a tensor is missing or has another shape, or no file holds some
/// of its elements; shards may then be partly filled.
TrainingState load_checkpoint(
    const std::filesystem::path& checkpoint, std::span<const TensorShard> shards,
    const CheckpointCrew::Beat& beat = [] {});

/// The state alone, without reading tensors.
TrainingState read_training_state(const std::filesystem::path& checkpoint);

/// Why a checkpoint cannot be relied upon, as a sentence; empty: every byte of it is as written.
/// Of `sharers` ranks that each call it, the one at `place` reads its share of the files.
std::string checkpoint_fault(
    const std::filesystem::path& checkpoint, int place = 0, int sharers = 1,
    const CheckpointCrew::Beat& beat = [] {});

struct LastGood {
  std::optional<std::int64_t> step;
  std::vector<std::string> passed_over;    ///< later ones that are not good, and why
  std::vector<std::int64_t> passed_steps;  ///< those of them that were finished
};
/// The latest checkpoint under a root that is whole, all of whose bytes are read and checked by the
/// ranks of the crew, a share each. Every rank gets the same answer.
LastGood find_last_good(const std::filesystem::path& root, CheckpointCrew& crew);

/// The step of the latest finished checkpoint under a root, good or not.
std::optional<std::int64_t> latest_finished(const std::filesystem::path& root);

/// Renames a checkpoint so that it neither counts as one any more nor is lost; returns its new
/// place, ROOT/passed-over-step-00001200.
std::filesystem::path set_aside(const std::filesystem::path& root, std::int64_t step);

/// Removes all checkpoints before that of step `written` but the latest `keep` finished ones, which
/// it is one of, and unfinished ones before those. Later ones are left alone. REQUIRES: keep ≥ 1.
void remove_old_checkpoints(const std::filesystem::path& root, std::int64_t written, int keep);

}  // namespace rehearse
