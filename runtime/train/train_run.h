#pragma once
#include "runtime/train/device_peak.h"
#include "runtime/train/train_request.h"

namespace rehearse {

/// What a run gave, on its first rank.
struct TrainResult {
  std::vector<StepReport> steps;
  std::vector<double> step_times_s;
  double tokens_per_step = 0;
  int ranks = 1;
  std::vector<std::vector<double>> traffic_bytes;  ///< [rank][Traffic], of the last step
  std::vector<DataCount> data;                     ///< [rank], of all steps of this run
  Partition partition = Partition::Random;
  std::int64_t samples_per_epoch = 0;
  std::vector<std::vector<double>> memory;  ///< [rank][kMemoryParts], peak bytes
  double model_flops = 0;                   ///< of a step, as training_flops counts them
  DevicePeak peak;                          ///< of one rank's device
  double median_step_s() const;
  /// Share of what all ranks' devices could do; 0: their peak is not known.
  double mfu() const;
};

/// Steps of the whole run.
std::int64_t steps_of(const TrainRequest& request, const PlanFile& file);

/// One rank of a run, from its first step to its last. `progress` is called on the first rank after
/// each step.
TrainResult run_training(const TrainRequest& request, const PlanFile& file, World& world,
                         ComputeDevice& device,
                         const std::function<void(const StepReport&, double step_s)>& progress);

}  // namespace rehearse
