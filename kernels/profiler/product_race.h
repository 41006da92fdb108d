#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "kernels/profiler/profile_device.h"

namespace rehearse {

/// Two implementations of the same calls, timed in turns so that clocks drift for both.
struct RaceResult {
  std::size_t task = 0;
  double ours_s = 0, bare_s = 0;  ///< medians of a call
  double ratio = 0;               ///< median of ours over the other's, round by round
  int rounds = 0;
};

/// Runs both `rounds` times, whoever goes first in turns. `calls` are in each batch.
RaceResult race(TimedBatch& ours, TimedBatch& bare, std::size_t calls, int rounds);

/// Makes the other implementation's batch of calls.
using BareBatch = std::function<std::unique_ptr<TimedBatch>(const std::vector<OperatorCall>&)>;

/// Races of each task over operands that lie in no cache, until the budget is spent. One that
/// seems to miss the tolerance is raced again, three times as long: an interruption of the machine
/// must not decide.
std::vector<RaceResult> race_all(const std::vector<ProfileTask>& tasks, ProfiledDevice& device,
                                 const BareBatch& bare, double tolerance, double budget_s,
                                 const std::atomic<bool>& interrupt);

/// Products of layers of the shipped models and others beside them, in three layouts, bf16 and a
/// few in fp32.
std::vector<ProfileTask> race_tasks(const ProfileScope& scope);

/// A line for each race, and the verdict: every product within the tolerance.
std::string race_text(const std::vector<ProfileTask>& tasks, const std::vector<RaceResult>& results,
                      double tolerance);
/// All tasks were raced, and all are within the tolerance.
bool race_passes(const std::vector<ProfileTask>& tasks, const std::vector<RaceResult>& results,
                 double tolerance);

/// cuBLASLt called as its documentation shows, on the stream of a device that `profiled_gpu` made,
/// recorded as a graph like ours: a handle and a workspace of its own, the first choice of its
/// heuristic. Throws where this program was built without device code.
BareBatch bare_cublas(ProfiledDevice& device);

}  // namespace rehearse
