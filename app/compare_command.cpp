#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "app/commands.h"
#include "app/output.h"
#include "app/text_table.h"
#include "app/timeline_comparison.h"
#include "plan/units.h"

namespace rehearse {
namespace {

/// The files that `measured` stands for: itself, or all timelines in the folder, in order.
std::vector<std::string> measured_files(const std::string& measured) {
  if (!std::filesystem::is_directory(measured)) return {measured};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(measured))
    if (entry.path().filename().string().ends_with(".timeline.json"))
      files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  if (files.empty())
    throw std::runtime_error(measured + ": no rank left a *.timeline.json in this folder");
  return files;
}

std::string milliseconds(double seconds) { return fmt::format("{:.3f}", 1e3 * seconds); }

/// Percent of what was measured; a dash where that is nothing.
std::string percent(double predicted, double measured) {
  if (measured <= 0) return "-";
  return fmt::format("{:+.1f}", 100 * relative_difference(predicted, measured));
}

std::vector<std::string> row(const std::string& stream, const std::string& part, double predicted_s,
                             double measured_s) {
  return {stream,
          part,
          milliseconds(predicted_s),
          milliseconds(measured_s),
          fmt::format("{:+.3f}", 1e3 * (predicted_s - measured_s)),
          percent(predicted_s, measured_s)};
}

std::string bytes_text(double bytes) { return bytes > 0 ? format_count(bytes) : "-"; }

TextTable comparison_table(const TimelineComparison& comparison) {
  TextTable table({{.title = "stream", .align = Align::Left},
                   {.title = "part", .align = Align::Left, .least_width = 20},
                   {.title = "predicted", .unit = "ms"},
                   {.title = "measured", .unit = "ms"},
                   {.title = "difference", .unit = "ms"},
                   {.title = "error", .unit = "%"},
                   {.title = "predicted", .unit = "bytes", .droppable = 1},
                   {.title = "measured", .unit = "bytes", .droppable = 1}});
  const auto add = [&](std::vector<std::string> cells, double predicted_bytes,
                       double measured_bytes) {
    cells.push_back(bytes_text(predicted_bytes));
    cells.push_back(bytes_text(measured_bytes));
    table.add_row(cells);
  };
  const auto& parts = comparison.parts;
  for (std::size_t i = 0; i < parts.size();) {
    const Stream stream = parts[i].stream;
    ComparedPart sum;
    for (; i < parts.size() && parts[i].stream == stream; ++i) {
      const ComparedPart& part = parts[i];
      add(row(stream_name(stream), part.tag, part.predicted_s, part.measured_s),
          part.predicted_bytes, part.measured_bytes);
      sum.predicted_s += part.predicted_s;
      sum.measured_s += part.measured_s;
      sum.predicted_bytes += part.predicted_bytes;
      sum.measured_bytes += part.measured_bytes;
    }
    add(row(stream_name(stream), "all of it", sum.predicted_s, sum.measured_s), sum.predicted_bytes,
        sum.measured_bytes);
    if (stream == Stream::Compute)
      add(row(stream_name(stream), "nothing (waits)", comparison.predicted_step_s - sum.predicted_s,
              comparison.measured_step_s - sum.measured_s),
          0, 0);
  }
  add(row("step", "", comparison.predicted_step_s, comparison.measured_step_s), 0, 0);
  return table;
}

std::string memory_cell(double bytes) { return bytes > 0 ? format_bytes(bytes) : "-"; }

/// Peak memory of each stage's fullest rank; nothing where a side does not tell.
std::string memory_report(const TimelineComparison& comparison, const CompareOptions& options) {
  const auto [predicted, measured] = worst_memory(comparison);
  if (measured <= 0) return {};
  TextTable table({{.title = "stage"},
                   {.title = "memory", .align = Align::Left, .least_width = 14},
                   {.title = "predicted"},
                   {.title = "measured"},
                   {.title = "error", .unit = "%"}});
  for (const ComparedMemory& row : comparison.memory)
    table.add_row({std::to_string(row.stage), row.part, memory_cell(row.predicted_bytes),
                   memory_cell(row.measured_bytes),
                   row.predicted_bytes > 0 ? percent(row.predicted_bytes, row.measured_bytes)
                                           : std::string("-")});
  return fmt::format(
             "\nPeak memory of the fullest rank, of what both tell: predicted {}, "
             "measured {}: {} %\n\n",
             format_bytes(predicted), format_bytes(measured), percent(predicted, measured)) +
         table.text(options.wide ? std::size_t{0} : std::size_t{100},
                    stdout_takes_color(options.color));
}

std::string report(const TimelineComparison& comparison, const CompareOptions& options) {
  std::string text = fmt::format("Step predicted {}, measured {}: {} %\n\n",
                                 format_seconds(comparison.predicted_step_s),
                                 format_seconds(comparison.measured_step_s),
                                 percent(comparison.predicted_step_s, comparison.measured_step_s));
  text += comparison_table(comparison)
              .text(options.wide ? std::size_t{0} : std::size_t{100},
                    stdout_takes_color(options.color));
  text += fmt::format(
      "\nMeans over {} ranks; measured: medians over {} steps, the step that of the slowest rank.\n"
      "Errors are (predicted - measured) / measured. {:.1f} % of the predicted time has measured\n"
      "parts of the same name beside it.\n",
      comparison.measured_ranks, comparison.steps, 100 * comparison.paired_share);
  return text + memory_report(comparison, options);
}

void say_what_differs(const TimelineComparison& comparison) {
  if (comparison.predicted_ranks != comparison.measured_ranks)
    note(fmt::format("{} ranks were predicted and {} measured: this compares two plans",
                     comparison.predicted_ranks, comparison.measured_ranks));
  if (comparison.predicted_plan != comparison.measured_plan)
    note(fmt::format("the plans have two names: \"{}\" and \"{}\"",
                     printable(comparison.predicted_plan), printable(comparison.measured_plan)));
}

}  // namespace

ExitCode compare_command(const CompareOptions& options) {
  for (const std::string& path : {options.json, options.trace})
    if (!path.empty() && path != "-") refuse_existing(path, options.force);
  Problems problems;
  const auto predicted = read_timeline(read_whole(options.predicted), options.predicted, problems);
  std::vector<TimelineFile> measured;
  for (const std::string& path : measured_files(options.measured))
    if (auto file = read_timeline(read_whole(path), path, problems))
      measured.push_back(std::move(*file));
  if (!problems.empty()) {
    report_problems(problems);
    return ExitCode::BadInput;
  }
  const TimelineComparison comparison = compare_timelines(*predicted, measured);
  say_what_differs(comparison);
  if (!options.trace.empty())
    write_result(options.trace, timeline_pair_trace(*predicted, measured), options.force);
  if (!options.json.empty()) write_result(options.json, comparison_json(comparison), options.force);
  if (options.json != "-" && options.trace != "-")
    write_result("-", report(comparison, options), false);
  return ExitCode::Done;
}

}  // namespace rehearse
