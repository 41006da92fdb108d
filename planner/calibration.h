#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "planner/measured_runs.h"
#include "planner/validate.h"

namespace rehearse {

/// Factors of one user's own system, fitted to their runs: the format calibration/1. They multiply
/// times that the models predict; 1 leaves them as they are.
struct Calibration {
  double computing = 1;  ///< of every operator
  double network = 1;    ///< of transfers between nodes: the ports' rate is divided by it
  double host = 1;       ///< of issuing operators
  int fitted_runs = 0, left_out_runs = 0;
  double left_out_error = 0;  ///< mean absolute error of the runs left out, with these factors
  double unfitted_error = 0;  ///< of the same runs without
  /// Half width of the 90 % interval as a factor, from the runs left out.
  double relative_error = 0.25;
};

std::optional<Calibration> read_calibration(std::string_view text, const std::string& path,
                                            Problems& problems);
std::string write_calibration(const Calibration& calibration);

/// The cluster with its network ports as the calibration found them.
ClusterSpec calibrated(ClusterSpec cluster, const Calibration& calibration);
/// Runs whose predictions take the calibration into account.
std::vector<MeasuredRun> calibrated(std::vector<MeasuredRun> runs, const Calibration& calibration);

/// Fewest timed runs that can be fitted and checked.
inline constexpr int kLeastCalibrationRuns = 6;

struct CalibrationRuns {
  std::vector<MeasuredRun> fitted, left_out;
};
/// Deals timed, expressible runs into a part to fit and a share to check with, by a fixed seed.
CalibrationRuns split_for_calibration(const std::vector<MeasuredRun>& runs, double left_out_share);

/// Fits the factors to `runs.fitted` and fills in how wrong they leave `runs.left_out`, each
/// simulated again with them.
Calibration calibrate(const CalibrationRuns& runs, int jobs,
                      const std::function<void(std::size_t)>& on_done);

}  // namespace rehearse
