#pragma once
#include <string>
#include <utility>
#include <vector>

#include "plan/timeline_file.h"

namespace rehearse {

/// One part of a step: what a stream did under one tag.
struct ComparedPart {
  Stream stream = Stream::Compute;
  std::string tag;
  double predicted_s = 0, measured_s = 0;  ///< of a step, mean over ranks
  double predicted_bytes = 0, measured_bytes = 0;
};

/// What takes a stage's memory: the fullest measured rank's parts beside the simulated ones.
struct ComparedMemory {
  std::int32_t stage = 0;
  std::string part;
  double predicted_bytes = 0, measured_bytes = 0;  ///< 0: one side does not tell it
};

/// A measured run beside its prediction.
struct TimelineComparison {
  std::string predicted_plan, measured_plan;
  std::size_t predicted_ranks = 0, measured_ranks = 0;
  std::size_t steps = 0;  ///< measured, of the rank that has fewest
  double predicted_step_s = 0, measured_step_s = 0;
  double paired_share =
      1;  ///< of the predicted time of all streams: what was measured under its name
  std::vector<ComparedMemory> memory;  ///< by stage, in the prediction's order of parts
  std::vector<ComparedPart> parts;     ///< by stream, then the longest prediction first
};

/// Measured times are medians over the steps of each rank, so that a disturbed step does not count;
/// the step's is that of the slowest rank. Means over ranks weigh each by what it represents.
/// REQUIRES: at least one measured file.
TimelineComparison compare_timelines(const TimelineFile& predicted,
                                     const std::vector<TimelineFile>& measured);

/// The stage whose parts that both sides tell differ most in their sum, as (predicted, measured)
/// bytes; zeros where nothing can be compared.
std::pair<double, double> worst_memory(const TimelineComparison& comparison);

/// (predicted − measured) / measured; 0 where nothing was measured.
double relative_difference(double predicted, double measured);

std::string comparison_json(const TimelineComparison& comparison);

/// Both in one Perfetto trace: processes "predicted rank 0", "measured rank 0", … one below the
/// other, each with its streams. Of the measured steps, each rank's latest.
std::string timeline_pair_trace(const TimelineFile& predicted,
                                const std::vector<TimelineFile>& measured);

}  // namespace rehearse
