#include "app/run_command.h"

#include <fmt/format.h>

#include <chrono>
#include <set>

#include "app/calibration_input.h"
#include "app/output.h"
#include "app/plan_output.h"
#include "app/report.h"
#include "app/result_json.h"
#include "app/run_job.h"
#include "app/scenario_input.h"
#include "plan/units.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

/// Two results in one file would leave only the last.
void refuse_bad_outputs(const RunOptions& options) {
  std::set<std::string> seen;
  for (const std::string& path : {options.output, options.json, options.csv, options.trace,
                                  options.timeline, options.plan_out}) {
    if (path.empty() || path == "-") continue;
    if (!seen.insert(path).second)
      throw UsageError("two results are to go to " + path, "give each its own file");
    refuse_existing(path, options.force);
  }
}

/// The fastest plan of the first scenario as it stands: the one whose timeline and plan people
/// ask for.
struct Chosen {
  const VariantResult* variant = nullptr;
  std::size_t plan = 0;
};

std::optional<Chosen> chosen_plan(const RunResult& result) {
  const VariantResult* base = result.base_of(0);
  if (base == nullptr) return std::nullopt;
  const auto winner = base->winner();
  if (!winner) return std::nullopt;
  return Chosen{base, *winner};
}

void write_for_chosen(const RunResult& result, const RunOptions& options,
                      const EvaluationOptions& evaluation) {
  if (options.trace.empty() && options.timeline.empty() && options.plan_out.empty()) return;
  const auto chosen = chosen_plan(result);
  if (!chosen) {
    note("no plan fits, so no trace and no plan is written");
    return;
  }
  if (!options.trace.empty())
    write_result(options.trace, trace_of(*chosen->variant, chosen->plan, evaluation),
                 options.force);
  if (!options.timeline.empty())
    write_result(options.timeline, timeline_of(*chosen->variant, chosen->plan, evaluation),
                 options.force);
  if (!options.plan_out.empty())
    write_result(options.plan_out, plan_file_of(*chosen->variant, chosen->plan), options.force);
}

void say_what_was_written(const RunOptions& options, bool has_chosen) {
  const auto say = [](const std::string& path, const char* what) {
    if (!path.empty() && path != "-") note(fmt::format("wrote {} ({})", path, what));
  };
  say(options.output, "table");
  say(options.json, "result/1");
  say(options.csv, "CSV");
  if (!has_chosen) return;
  say(options.trace, "timeline, open it at ui.perfetto.dev");
  say(options.timeline, "timeline/1");
  say(options.plan_out, "plan/1");
}

void say_next_steps(const RunOptions& options, bool has_chosen) {
  const std::string& scenario = options.scenarios[0];
  if (has_chosen && options.trace.empty())
    note(fmt::format("see the timeline: rehearse run {} --trace trace.json", scenario));
  if (options.json.empty() && options.csv.empty())
    note(fmt::format("keep every number: rehearse run {} --json result.json", scenario));
}

void say_phases(const RunResult& result, double wall_s) {
  PhaseTimes sum;
  for (const VariantResult& variant : result.variants) {
    for (const PlanOutcome& plan : variant.plans) {
      const PhaseTimes& phases = plan.phases;
      note(fmt::format("{} · {}: pricing {}, lowering {}, simulation {}", variant.variant.name,
                       plan.plan.name, format_seconds(phases.pricing_s),
                       format_seconds(phases.lowering_s), format_seconds(phases.simulation_s)));
      sum.pricing_s += phases.pricing_s;
      sum.lowering_s += phases.lowering_s;
      sum.simulation_s += phases.simulation_s;
    }
  }
  note(fmt::format("all: pricing {}, lowering {}, simulation {}; {} from start to result",
                   format_seconds(sum.pricing_s), format_seconds(sum.lowering_s),
                   format_seconds(sum.simulation_s), format_seconds(wall_s)));
}

void print_result(const RunResult& result, const RunOptions& options) {
  if (!options.json.empty()) write_result(options.json, result_json(result), options.force);
  if (!options.csv.empty()) write_result(options.csv, result_csv(result), options.force);
  const bool stdout_is_taken = options.json == "-" || options.csv == "-" || options.trace == "-" ||
                               options.timeline == "-" || options.plan_out == "-";
  if (stdout_is_taken && options.output.empty()) return;
  const bool to_file = !options.output.empty() && options.output != "-";
  const ReportStyle style{.width = options.wide ? std::size_t{0} : std::size_t{100},
                          .color = !to_file && stdout_takes_color(options.color)};
  write_result(options.output, report_text(result, style), options.force);
}

void calibrate_clusters(std::vector<ScenarioFile>& files, const Calibration& calibration) {
  for (ScenarioFile& file : files)
    for (Variant& variant : file.variants)
      variant.scenario.cluster = calibrated(std::move(variant.scenario.cluster), calibration);
}

EvaluationOptions evaluation_options(const RunOptions& options, const Calibration& calibration) {
  EvaluationOptions evaluation;
  evaluation.lowering = options.lowering;
  evaluation.framework.computing = calibration.computing;
  evaluation.framework.host = calibration.host;
  if (!options.calibration.empty())
    evaluation.framework.relative_error = calibration.relative_error;
  evaluation.calibrated = !options.calibration.empty();
  return evaluation;
}

}  // namespace

ExitCode run_command(const RunOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  refuse_bad_outputs(options);
  auto files = read_scenarios(options.scenarios);
  const auto calibration = read_calibration_file(options.calibration);
  if (!files || !calibration) return ExitCode::BadInput;
  if (!options.calibration.empty()) calibrate_clusters(*files, *calibration);

  const RunRequest request{.files = std::move(*files),
                           .evaluation = evaluation_options(options, *calibration),
                           .shard_index = options.shard.index,
                           .shard_count = options.shard.count,
                           .what_if = !options.no_what_if,
                           .jobs = options.jobs > 0 ? options.jobs : available_cores()};
  RunFaults faults;
  Progress progress("plans simulated", evaluation_count(request), options.quiet);
  const RunResult result = evaluate_all(
      request, [&](std::size_t done) { progress.update(done); }, faults);
  progress.clear();
  if (!faults.text.empty()) {
    fmt::print(stderr, "{}", faults.text);
    return ExitCode::BadInput;
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;

  print_result(result, options);
  write_for_chosen(result, options, request.evaluation);
  const bool has_chosen = chosen_plan(result).has_value();
  if (options.verbose) say_phases(result, wall.count());
  if (!options.quiet) {
    say_what_was_written(options, has_chosen);
    say_next_steps(options, has_chosen);
  }
  return is_infeasible(result) ? ExitCode::Infeasible : ExitCode::Done;
}

}  // namespace rehearse
