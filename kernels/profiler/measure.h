#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/profiler/profile_task.h"
#include "kernels/profiler/statistics.h"
#include "kernels/profiler/stopwatch.h"

namespace rehearse {

struct MeasureOptions {
  double budget_s = 60;       ///< for everything
  double cache_bytes = 0;     ///< last-level cache; operands rotate over more than twice this
  double memory_bytes = 1e9;  ///< that operands of one task may take
  int most_sets = 64;         ///< of operands that one task rotates over
  double batch_s = 2e-3;      ///< a sample is at least this long, so that clocks resolve it
  double rotation_s = 2e-3;   ///< most that one turn over all sets of operands may take
  int least_samples = 5, most_samples = 30;
  double enough_spread = 0.02;  ///< of the middle 80 %: measuring stops
  std::uint64_t seed = 1;       ///< of the data and of the order of tasks
};

struct MeasuredOperator {
  std::size_t task = 0;
  bool sustained = false;
  SampleStatistics seconds;
  std::map<std::string, std::string> remarks;
};

/// Where a run of measurements stands.
struct MeasureProgress {
  std::size_t done = 0, total = 0;
  double elapsed_s = 0;
};

/// A task that could not be measured, and why.
struct MeasureFailure {
  std::size_t task = 0;
  std::string reason;
};

struct Measurements {
  std::vector<MeasuredOperator> operators;  ///< in the order of the tasks
  std::vector<MeasureFailure> failures;     ///< in the order they happened
  std::size_t not_reached = 0;              ///< tasks that the budget or an interruption left out
  bool interrupted = false;
  double elapsed_s = 0;
};

/// Measures tasks in random order, so that drifts of the clock spread over all sizes. Each is
/// warmed up, timed in batches over rotating operands, and given its share of the time that is
/// left. `interrupt`, set by a signal, ends it with what there is. A task that the device refuses
/// is a failure of its own; a device that is lost by one ends the run.
Measurements measure(const std::vector<ProfileTask>& tasks, ComputeDevice& device,
                     Stopwatch& stopwatch, const MeasureOptions& options,
                     const std::atomic<bool>& interrupt,
                     const std::function<void(const MeasureProgress&)>& progress);

}  // namespace rehearse
