#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "app/calibration_input.h"
#include "app/commands.h"
#include "app/output.h"
#include "app/validation_report.h"
#include "plan/edit_distance.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

void refuse_unknown_families(const std::vector<MeasuredRun>& runs,
                             const std::vector<std::string>& wanted) {
  std::set<std::string> known;
  for (const MeasuredRun& run : runs) known.insert(run.family);
  for (const std::string& family : wanted)
    if (!known.contains(family))
      throw UsageError("no run is of the family \"" + printable(family) + "\"",
                       name_hint(family, {known.begin(), known.end()}));
}

std::vector<MeasuredRun> wanted_runs(std::vector<MeasuredRun> runs,
                                     const ValidateOptions& options) {
  refuse_unknown_families(runs, options.families);
  std::erase_if(runs, [&](const MeasuredRun& run) {
    const auto& families = options.families;
    const bool other_family = !families.empty() && std::find(families.begin(), families.end(),
                                                             run.family) == families.end();
    return other_family || (!options.framework.empty() &&
                            name_of(framework_names(), run.framework) != options.framework);
  });
  return runs;
}

void print(const ValidationResult& result, const ValidateOptions& options) {
  if (!options.json.empty()) write_result(options.json, validation_json(result), options.force);
  if (!options.markdown.empty())
    write_result(options.markdown, validation_markdown(result), options.force);
  if (options.json == "-" || options.markdown == "-") return;
  write_result("-",
               validation_text(result, options.wide ? 0 : 100, stdout_takes_color(options.color),
                               options.summary),
               false);
}

}  // namespace

ExitCode validate_command(const ValidateOptions& options) {
  refuse_existing(options.json, options.force);
  refuse_existing(options.markdown, options.force);
  Problems problems;
  auto runs = read_measured_runs(read_whole(options.runs), options.runs, problems);
  if (!runs) {
    report_problems(problems);
    return ExitCode::BadInput;
  }
  const auto calibration = read_calibration_file(options.calibration);
  if (!calibration) return ExitCode::BadInput;
  ValidationResult result;
  result.runs = wanted_runs(std::move(*runs), options);
  if (!options.calibration.empty()) result.runs = calibrated(std::move(result.runs), *calibration);
  if (result.runs.empty()) throw UsageError("there is no run to compare with", "");

  Progress progress("runs predicted", result.runs.size(), options.quiet);
  result.predictions = predict_all(result.runs, options.jobs > 0 ? options.jobs : available_cores(),
                                   [&](std::size_t done) { progress.update(done); });
  progress.clear();
  result.summary = compare(result.runs, result.predictions);
  result.cross = cross_validate(result.runs, result.predictions);
  result.judged_host = errors_with_judged_host_times(
      result.runs, options.jobs > 0 ? options.jobs : available_cores());
  print(result, options);

  const double error = result.summary.step_time_family_mean;
  if (options.tolerance <= 0 || error <= options.tolerance) return ExitCode::Done;
  note(fmt::format("the mean error of {:.1f} % is above the tolerance of {:.1f} %", 100 * error,
                   100 * options.tolerance));
  return ExitCode::Tolerance;
}

}  // namespace rehearse
