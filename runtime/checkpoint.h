#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace rehearse {

/// A box of a tensor that a rank holds, in row-major order. Tensors are known by name; boxes of
/// several ranks may overlap (replicas), and then hold the same numbers.
struct TensorShard {
  std::string name;
  std::vector<std::int64_t> shape;          ///< of the whole tensor
  std::vector<std::int64_t> begin, extent;  ///< this rank's box, as many dimensions as `shape`
  float* data = nullptr;                    ///< product of `extent` numbers
};

/// What a run needs beside its tensors to go on bit for bit. The position in the data follows from
/// the step (runtime/data/batches.h), random numbers from the seed and the step.
struct TrainingState {
  std::int64_t step = 0;  ///< steps done
  std::uint64_t seed = 0;
  std::string plan_digest;  ///< of the plan that wrote it; another layout may load it
  /// Named numbers, such as those of an adaptive learning rate; they come back bit for bit,
  /// infinities and NaN as such.
  std::vector<std::pair<std::string, double>> scalars;
};

/// A checkpoint of step 1200 is the folder ROOT/step-00001200: rank-00000.shards, … one a rank, and
/// manifest.json, written last: a folder without it is unfinished and never read. Each rank calls
/// this; `barrier` returns when all ranks have entered it. Two barriers: after rank 0 has made the
/// folder, and after every file has its name. Files come into being whole or not at all and are
/// flushed to the disk. Throws std::runtime_error where they cannot be written; the checkpoints
/// before are then as they were.
void save_checkpoint(const std::filesystem::path& root, int rank, int world,
                     const TrainingState& state, std::span<const TensorShard> shards,
                     const std::function<void()>& barrier);

/// Fills every shard from whatever boxes the files of a checkpoint hold: any layout loads into any
/// other. `checkpoint` is one step's folder. Throws std::runtime_error with a sentence where a file
/// is missing, cut off or damaged, a tensor is missing or has another shape, or no file holds some
/// of its elements; shards may then be partly filled.
TrainingState load_checkpoint(const std::filesystem::path& checkpoint,
                              std::span<const TensorShard> shards);

/// The state alone, without reading tensors.
TrainingState read_training_state(const std::filesystem::path& checkpoint);

/// Why a checkpoint cannot be relied upon, as a sentence; empty: every byte of it is as written.
std::string checkpoint_fault(const std::filesystem::path& checkpoint);

struct LastGood {
  std::optional<std::filesystem::path> checkpoint;
  std::vector<std::string> passed_over;  ///< later ones that are not good, and why
  bool some_finished = false;            ///< whether one of all those was ever finished
};
/// The latest checkpoint under a root that is whole, all of whose bytes are read and checked. Meant
/// for one rank, which tells the others.
LastGood find_last_good(const std::filesystem::path& root);

/// Removes all checkpoints but the latest `keep` finished ones, and unfinished ones before those.
/// For rank 0, after a save. REQUIRES: keep ≥ 1.
void remove_old_checkpoints(const std::filesystem::path& root, int keep);

}  // namespace rehearse
