#pragma once
#include <string>
#include <vector>

#include "planner/fitted_families.h"
#include "planner/measured_runs.h"
#include "planner/validate.h"

namespace rehearse {

/// Errors of predictions, as fractions: (predicted − measured) / measured.
struct ErrorStatistics {
  int count = 0;          ///< predictions that can be compared
  int missing = 0;        ///< measured, but not expressible: 100 % each in `mean_abs`
  double mean_abs = 0;    ///< over both
  double median_abs = 0;  ///< of those that can be compared
  double bias = 0;        ///< mean with sign, of those that can be compared
  double worst = 0;       ///< with its sign
  std::string worst_id;
};
ErrorStatistics statistics_of(const std::vector<double>& errors,
                              const std::vector<std::string>& ids, int missing);

/// Out of memory, foretold and measured.
struct OutOfMemoryTable {
  int true_positive = 0, false_positive = 0, true_negative = 0, false_negative = 0;
  int total() const { return true_positive + false_positive + true_negative + false_negative; }
  double right() const;  ///< share; 1 where nothing was told
};

struct FamilyErrors {
  std::string name;
  int runs = 0;
  ErrorStatistics step_time, memory;
  OutOfMemoryTable out_of_memory;
  Twins twins;
  std::string left_out;  ///< why its step times are in no mean over families; empty: they are
};

struct Validation {
  std::vector<FamilyErrors> families;  ///< by name
  ErrorStatistics step_time, memory;   ///< over all runs but those of families left out
  OutOfMemoryTable out_of_memory;
  /// Means over families of their means; families of fewer than kPooledRuns runs count as one.
  /// Of runs of Megatron-LM in 16 bits on kMegatronGpus or more.
  ErrorStatistics megatron_16_bits;
  double step_time_family_mean = 0, memory_family_mean = 0, out_of_memory_family_right = 1;
  double inside_interval = 0;  ///< share of timed runs whose time lies in the stated interval
};
inline constexpr int kPooledRuns = 5;
inline constexpr int kMegatronGpus = 8;

/// Compares what was measured with what was predicted; both in the same order.
Validation compare(const std::vector<MeasuredRun>& runs,
                   const std::vector<RunPrediction>& predictions);

/// (predicted − measured) / measured of the step time; nothing to compare: false.
bool step_time_error(const MeasuredRun& run, const RunPrediction& prediction, double& error);
bool memory_error(const MeasuredRun& run, const RunPrediction& prediction, double& error);

/// Whether a measured time lies in the interval stated with the prediction.
bool in_interval(const RunPrediction& prediction, double step_time_s);

/// Why a run's time says more about faults of its framework than about hardware; empty: it does
/// not. nanotron's pipeline waits for each transfer on the host, and its tensor groups over
/// several nodes send each layer's activations over the NICs unfused: its authors call both broken
/// in the benchmark's notes.
std::string framework_fault(const MeasuredRun& run);

/// How errors change when the constants have not seen a family. The parts of each prediction
/// (computing on each GPU type, communication, host) get one factor each, fitted by least squares
/// of relative errors with a pull towards 1 on the runs seen, and the runs not seen are predicted
/// with them.
struct CrossValidation {
  double leave_family_out = 0;  ///< mean over families of the mean error: "not fitted to"
  double random_half = 0;       ///< the same, fitted on a random half of all runs (seeded)
  double inside_interval = 0;   ///< of left-out runs, share inside the stated interval
};
CrossValidation cross_validate(const std::vector<MeasuredRun>& runs,
                               const std::vector<RunPrediction>& predictions);

}  // namespace rehearse
