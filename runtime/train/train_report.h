#pragma once
#include <chrono>
#include <string>

#include "runtime/train/train_run.h"

namespace rehearse {

/// A line on the terminal that is written over after each step; nothing elsewhere.
class ProgressLine {
 public:
  explicit ProgressLine(std::int64_t steps);
  void show(const StepReport& report, double step_s, const PlanFile& file);
  void end();

 private:
  bool on_terminal_, shown_ = false;
  std::int64_t steps_;
  std::chrono::steady_clock::time_point last_;
};

/// Loss, tokens a second, and the step's time beside what was predicted.
std::string result_text(const TrainResult& result, const PlanFile& file);
/// The same as a training/1 document, with every step and the bytes of every rank.
std::string result_json(const TrainResult& result, const PlanFile& file);

}  // namespace rehearse
