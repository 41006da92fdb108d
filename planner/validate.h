#pragma once
#include <functional>
#include <string>
#include <vector>

#include "planner/evaluate.h"
#include "planner/measured_runs.h"

namespace rehearse {

/// A part of a predicted step, averaged over GPUs.
struct Contribution {
  std::string name;
  double seconds = 0;
};

/// What is predicted for one measured run.
struct RunPrediction {
  std::string not_expressible;  ///< why nothing could be predicted; empty: predicted
  double step_time_s = 0;
  double memory_bytes = 0;    ///< the figure that the run's framework reports, fullest stage
  double reserved_bytes = 0;  ///< held by the framework's allocator there
  double device_bytes = 0;    ///< with context and libraries
  double capacity_bytes = 0;  ///< of the smallest GPU of that stage
  bool fits = true;
  double relative_error = 0;  ///< expected: half of the 90 % interval, as a factor 1 ± it
  std::vector<Contribution> contributions;  ///< all parts of the step, largest first
};

/// Predicts a run in this process. One simulation per process at a time.
RunPrediction predict(const MeasuredRun& run);

/// Predicts all runs in `jobs` worker processes; `on_done` gets the number of runs done.
std::vector<RunPrediction> predict_all(const std::vector<MeasuredRun>& runs, int jobs,
                                       const std::function<void(std::size_t)>& on_done);

}  // namespace rehearse
