#include <fmt/format.h>

#include "app/calibration_input.h"
#include "app/commands.h"
#include "app/output.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

std::string summary(const Calibration& calibration) {
  return fmt::format(
      "computing  {:.3f}  of the modelled time\n"
      "network    {:.3f}\n"
      "host       {:.3f}\n\n"
      "fitted to {} runs; the {} runs left out are predicted with a mean error of {:.1f} %\n"
      "({:.1f} % without these factors), and nine in ten within a factor of {:.2f}\n",
      calibration.computing, calibration.network, calibration.host, calibration.fitted_runs,
      calibration.left_out_runs, 100 * calibration.left_out_error, 100 * calibration.unfitted_error,
      1 + calibration.relative_error);
}

}  // namespace

std::optional<Calibration> read_calibration_file(const std::string& path) {
  if (path.empty()) return Calibration();
  Problems problems;
  auto calibration = read_calibration(read_whole(path), path, problems);
  if (!calibration) report_problems(problems);
  return calibration;
}

ExitCode calibrate_command(const CalibrateOptions& options) {
  refuse_existing(options.output, options.force);
  Problems problems;
  const auto runs = read_measured_runs(read_whole(options.runs), options.runs, problems);
  if (!runs) {
    report_problems(problems);
    return ExitCode::BadInput;
  }
  const CalibrationRuns parts = split_for_calibration(*runs, options.left_out);
  const std::size_t timed = parts.fitted.size() + parts.left_out.size();
  if (timed < kLeastCalibrationRuns || parts.left_out.empty())
    throw UsageError(fmt::format("{} of the runs have a time and can be expressed; a fit and its "
                                 "check need {}",
                                 timed, kLeastCalibrationRuns),
                     "measure more configurations, best with different sizes and plans");

  Progress progress("runs predicted", parts.fitted.size(), options.quiet);
  const Calibration calibration =
      calibrate(parts, options.jobs > 0 ? options.jobs : available_cores(),
                [&](std::size_t done) { progress.update(done); });
  progress.clear();
  if (!options.output.empty())
    write_result(options.output, write_calibration(calibration), options.force);
  if (options.output != "-") write_result("-", summary(calibration), false);
  return ExitCode::Done;
}

}  // namespace rehearse
