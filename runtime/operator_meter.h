#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"
#include "runtime/train/part_namer.h"
#include "runtime/train/trainer.h"

namespace rehearse {

/// Times the operators of a training step as the simulation prices them: each of the lists in
/// kernels/layer.h by its shape, and the work of the step as a whole (Adam, the gradient norm,
/// clearing gradients) by the bytes it moves.
class OperatorMeter {
 public:
  OperatorMeter(const PlanFile& file, ComputeDevice& device);
  ~OperatorMeter();
  OperatorMeter(const OperatorMeter&) = delete;
  OperatorMeter& operator=(const OperatorMeter&) = delete;

  /// What the trainer computes on.
  ComputeDevice& device();
  void attach(Trainer& trainer);
  /// After each step.
  void end_step();
  /// Forgets what was measured so far.
  void forget();

  /// Times are means over a step: an interruption, which lengthens the step, lengthens them too,
  /// though it meets few of the short operators.
  struct Timed {
    Operator op;
    std::vector<double> seconds;     ///< of each step
    std::vector<double> executions;  ///< seconds of each
    double step_sum_s = 0;           ///< of the step at hand
    int step_count = 0;
  };
  /// By what prices depend on.
  const std::map<std::array<std::int64_t, 12>, Timed>& operators() const { return operators_; }
  /// Of the step as a whole: by their names, bytes and seconds of each step.
  struct StepWork {
    double bytes = 0;
    std::vector<double> seconds;
  };
  const std::map<std::string, StepWork>& step_work() const { return step_work_; }

 private:
  class Device;
  void record(const OperatorCall& call, double seconds);
  void close_unit();

  PlanFile file_;
  PartNamer namer_;
  std::unique_ptr<Device> device_;
  std::vector<Operator> open_;  ///< of the unit and pass at hand
  std::vector<double> open_s_;  ///< of each
  std::map<std::string, double> step_s_;
  std::map<std::array<std::int64_t, 12>, Timed> operators_;
  std::map<std::string, StepWork> step_work_;
  bool in_unit_ = false;
};

}  // namespace rehearse
