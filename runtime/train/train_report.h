#pragma once
#include <chrono>
#include <string>

#include "runtime/train/train_run.h"

namespace rehearse {

/// What stderr says while a run lasts: on a terminal a line that is written over after each step,
/// elsewhere a line every half minute, for whoever reads a log.
class ProgressLine {
 public:
  /// `on_terminal`: of the run, whose ranks a launcher may have given pipes.
  ProgressLine(std::int64_t steps, bool on_terminal);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void show(const StepReport& report, double step_s, const PlanFile& file);

 private:
  using Clock = std::chrono::steady_clock;
  bool on_terminal_, shown_ = false;
  std::int64_t steps_;
  Clock::time_point last_ = Clock::now();
};

/// One line on a step, without an end.
std::string progress_text(const StepReport& report, double step_s, std::int64_t steps,
                          const PlanFile& file);

/// Loss, tokens a second, and the step's time beside what was predicted.
std::string result_text(const TrainResult& result, const PlanFile& file);
/// The same as a training/1 document, with every step and the bytes of every rank.
std::string result_json(const TrainResult& result, const PlanFile& file);

}  // namespace rehearse
