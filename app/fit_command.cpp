#include <fmt/format.h>

#include "app/commands.h"
#include "app/output.h"
#include "app/text_table.h"
#include "app/unpack.h"
#include "kernels/fit/fit_profile.h"
#include "kernels/profile_file.h"
#include "plan/edit_distance.h"
#include "plan/noun_tables.h"
#include "plan/units.h"
#include "planner/gpu_costs.h"

namespace rehearse {
namespace {

const GpuSpec& gpu_called(const std::string& id) {
  if (const GpuSpec* gpu = find_gpu(id)) return *gpu;
  std::vector<std::string> known;
  for (const GpuSpec& gpu : gpu_catalogue()) known.push_back(gpu.id);
  const std::string near = did_you_mean(id, known);
  throw UsageError(
      "no GPU is called \"" + printable(id) + "\"",
      near.empty() ? "`rehearse list gpus` prints the names" : "did you mean " + near + "?");
}

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

void add_errors(TextTable& table, const std::string& family, Precision precision,
                const FitErrors& errors, std::size_t knots) {
  const bool held_out = errors.held_out > 0;
  table.add_row({family, name_of(precision_names(), precision), std::to_string(errors.samples),
                 std::to_string(knots), percent(errors.fitted),
                 held_out ? percent(errors.held_out) : "-", std::to_string(errors.large_samples),
                 held_out && errors.large_samples > 0 ? percent(errors.held_out_large) : "-"});
}

TextTable errors_table(const Profile& profile) {
  TextTable table({{.title = "family", .align = Align::Left},
                   {.title = "precision", .align = Align::Left},
                   {.title = "shapes"},
                   {.title = "knots"},
                   {.title = "fitted", .unit = "%"},
                   {.title = "left out", .unit = "%"},
                   {.title = "large"},
                   {.title = "left out", .unit = "%"}});
  for (const GemmFit& fit : profile.gemm)
    add_errors(table, "products", fit.precision, fit.errors, fit.residuals.knots().size());
  for (const AttentionFit& fit : profile.attention)
    add_errors(table, "attention", fit.precision, fit.errors, fit.residuals.knots().size());
  return table;
}

TextTable memory_table(const Profile& profile) {
  TextTable table({{.title = "operators", .align = Align::Left, .least_width = 16},
                   {.title = "in cache", .unit = "TB/s"},
                   {.title = "memory", .unit = "TB/s"},
                   {.title = "error", .unit = "%"},
                   {.title = "evidence", .align = Align::Left}});
  const double sheet = profile.device.memory_bandwidth_bytes_per_s * 1e-12;
  for (const MemoryFit& fit : profile.memory)
    table.add_row({fit.operators.front() + (fit.operators.size() > 1 ? ", …" : ""),
                   fmt::format("{:.2f}", fit.cached_share * sheet),
                   fmt::format("{:.2f}", fit.memory_share * sheet), percent(fit.relative_error),
                   cost_source_name(fit.evidence)});
  return table;
}

std::string summary(const Profile& profile, const FitOptions& options) {
  std::string text = "Profile " + profile.gpu + "." + profile.stack + "\n\n";
  text += errors_table(profile).text(100, false) + "\n";
  text += options.cross_validate
              ? "Mean absolute errors: of the shapes fitted, and of shapes left out of the fit, a "
                "fifth at a time.\nLarge: products with m, n, k of at least 1,024; attention "
                "over 100 GFLOP.\n\n"
              : "Mean absolute errors of the shapes fitted; none were left out.\n\n";
  text += memory_table(profile).text(100, false) + "\n";
  text += fmt::format("Sustained rate {:.2f} ({}).\n", profile.sustained_rate.value,
                      profile.sustained_rate.source);
  for (const CollectiveCurve& curve : profile.collectives)
    text += fmt::format("{} among {} GPUs: {} sizes.\n", collective_name(curve.collective),
                        curve.ranks, curve.points.size());
  if (!profile.samples.empty())
    text += fmt::format("{} operators are priced as they were measured.\n", profile.samples.size());
  return text;
}

}  // namespace

ExitCode fit_command(const FitCommandOptions& options) {
  refuse_existing(options.output, options.force);
  FitRequest request;
  request.device = device_facts(gpu_called(options.gpu));
  request.stack = options.stack;
  request.made_by = "rehearse fit " + program_version();
  request.options.most_knots = static_cast<std::size_t>(options.knots);
  request.options.cross_validate = !options.no_cross_validation;
  request.sustained_rate = options.sustained_rate;
  request.keep_samples = options.keep_samples;

  Problems problems;
  std::vector<OperatorTable> tables;
  for (const std::string& path : options.tables) {
    auto table =
        read_operator_table(unpacked(read_whole(path), path), path, request.device, problems);
    if (!table) continue;
    for (const std::string& line : table->notes) note(path + ": " + line);
    if (table->samples.empty() && table->collectives.empty() && table->notes.empty())
      note(path + ": nothing in it is about " + options.gpu);
    tables.push_back(std::move(*table));
  }
  if (!problems.empty()) {
    report_problems(problems);
    return ExitCode::BadInput;
  }
  for (std::size_t i = 0; i < tables.size(); ++i)
    for (OperatorSample& sample : tables[i].samples) sample.table = static_cast<int>(i);

  const Profile profile = fit_profile(tables, request);
  // The profile on stdout, or a summary of one that went into a file.
  write_result(options.output, write_profile(profile), options.force);
  if (!options.output.empty() && options.output != "-")
    write_result("-", summary(profile, request.options), false);
  return ExitCode::Done;
}

}  // namespace rehearse
