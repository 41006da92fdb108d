#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "runtime/checkpoint.h"
#include "runtime/train/corpus.h"
#include "runtime/train/disk_crew.h"
#include "runtime/train/train_request.h"

namespace rehearse {

/// Why a run that begins anew must not write into a folder of checkpoints: another run's are in it.
/// Empty: it may, or it goes on from them.
std::string why_folder_is_taken(const TrainRequest& request);
inline constexpr const char* kTakenFolderHint = "--resume goes on from it; or name another folder";

/// Weights, moments, the place in the data and what the schedule of the rate remembers, in and out
/// of the checkpoints of a run. All ranks call the same functions together.
class RunCheckpoints {
 public:
  RunCheckpoints(const TrainRequest& request, const PlanFile& file, const Corpus& corpus,
                 Trainer& trainer);

  void save();
  /// Goes on from the last good checkpoint, if there is one. Those that it passes over are set
  /// aside. Throws ArgumentError where the checkpoint is of a run that this one does not go on
  /// with, and std::runtime_error where there are finished checkpoints and none is whole.
  void resume();
  /// The step of the checkpoint that was saved or loaded last; −1 for none.
  std::int64_t saved_step() const { return saved_step_; }

 private:
  TrainingState state() const;
  std::optional<std::int64_t> last_good();
  /// Says on the first rank what is different where that may be, and throws where it may not.
  void check(const TrainingState& stored);

  static constexpr int kKept = 2;  ///< so that one is whole while the next is written

  const TrainRequest& request_;
  Trainer& trainer_;
  DiskCrew crew_;
  TrainingState own_;  ///< of this run, before its first step
  std::int64_t saved_step_ = -1;
};

}  // namespace rehearse
