#include "app/validation_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/text_table.h"

namespace rehearse {
namespace {

constexpr double kGibibyte = 1024.0 * 1024 * 1024;

std::string signed_percent(double fraction) { return fmt::format("{:+.1f}", 100 * fraction); }
std::string plain_percent(double fraction) { return fmt::format("{:.1f}", 100 * fraction); }
std::string gibibytes(double bytes) {
  return bytes > 0 ? fmt::format("{:.1f}", bytes / kGibibyte) : "";
}

/// "matrix products 61 %, bubble 12 %, attention 9 %".
std::string largest_parts(const RunPrediction& prediction) {
  double total = 0;
  for (const Contribution& part : prediction.contributions) total += part.seconds;
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, prediction.contributions.size()); ++i) {
    const Contribution& part = prediction.contributions[i];
    text += fmt::format("{}{} {:.0f} %", i > 0 ? ", " : "", part.name, 100 * part.seconds / total);
  }
  return text;
}

std::string memory_cell(const MeasuredRun& run, const RunPrediction& prediction) {
  double error = 0;
  if (memory_error(run, prediction, error)) return signed_percent(error);
  if (!run.measured.out_of_memory && prediction.fits) return "";
  if (run.measured.out_of_memory && !prediction.fits) return "OOM";
  return run.measured.out_of_memory ? "OOM missed" : "OOM false";
}

TextTable runs_table(const ValidationResult& result) {
  TextTable table({{.title = "run", .unit = "", .align = Align::Left, .least_width = 16},
                   {.title = "measured", .unit = "s"},
                   {.title = "predicted", .unit = "s"},
                   {.title = "error", .unit = "%"},
                   {.title = "interval", .unit = "± %", .droppable = 2},
                   {.title = "measured", .unit = "GiB", .droppable = 1},
                   {.title = "predicted", .unit = "GiB", .droppable = 1},
                   {.title = "memory", .unit = "%"},
                   {.title = "largest parts", .unit = "", .align = Align::Left, .droppable = 3}});
  for (std::size_t i = 0; i < result.runs.size(); ++i) {
    const MeasuredRun& run = result.runs[i];
    const RunPrediction& prediction = result.predictions[i];
    if (!prediction.not_expressible.empty()) {
      table.add_sentence_row(run.id, "not expressible: " + prediction.not_expressible,
                             Tone::Warning);
      continue;
    }
    double error = 0;
    const bool timed = step_time_error(run, prediction, error);
    table.add_row({run.id, timed ? fmt::format("{:.4g}", run.measured.step_time_s) : "",
                   prediction.step_time_s > 0 ? fmt::format("{:.4g}", prediction.step_time_s) : "",
                   timed ? signed_percent(error) : "",
                   timed ? plain_percent(prediction.relative_error) : "",
                   gibibytes(run.measured.peak_memory_bytes), gibibytes(prediction.memory_bytes),
                   memory_cell(run, prediction), largest_parts(prediction)});
  }
  return table;
}

std::string right_cell(const OutOfMemoryTable& table) {
  return fmt::format("{}/{}", table.true_positive + table.true_negative, table.total());
}

struct SummaryRow {
  std::string name;
  const ErrorStatistics& time;
  const ErrorStatistics& memory;
  const OutOfMemoryTable& out_of_memory;
  bool left_out = false;

  std::vector<std::string> cells() const {
    const auto figure = [](const ErrorStatistics& of, double value, bool with_sign) {
      if (of.count + of.missing == 0) return std::string();
      return with_sign ? signed_percent(value) : plain_percent(value);
    };
    return {name + (left_out ? " *" : ""),
            std::to_string(time.count + time.missing),
            std::to_string(time.missing),
            figure(time, time.mean_abs, false),
            figure(time, time.median_abs, false),
            figure(time, time.bias, true),
            figure(time, time.worst, true),
            std::to_string(memory.count + memory.missing),
            figure(memory, memory.mean_abs, false),
            figure(memory, memory.bias, true),
            right_cell(out_of_memory)};
  }
};

std::vector<SummaryRow> summary_rows(const Validation& summary) {
  std::vector<SummaryRow> rows;
  for (const FamilyErrors& family : summary.families)
    rows.push_back({family.name, family.step_time, family.memory, family.out_of_memory,
                    !family.left_out.empty()});
  rows.push_back({"all", summary.step_time, summary.memory, summary.out_of_memory});
  return rows;
}

TextTable families_table(const Validation& summary) {
  TextTable table({{.title = "family", .unit = "", .align = Align::Left, .least_width = 14},
                   {.title = "timed", .unit = ""},
                   {.title = "not expr.", .unit = "", .droppable = 3},
                   {.title = "mean", .unit = "%"},
                   {.title = "median", .unit = "%"},
                   {.title = "bias", .unit = "%"},
                   {.title = "worst", .unit = "%"},
                   {.title = "memory", .unit = "runs", .droppable = 2},
                   {.title = "mean", .unit = "%"},
                   {.title = "bias", .unit = "%", .droppable = 1},
                   {.title = "OOM", .unit = "right"}});
  for (const SummaryRow& row : summary_rows(summary))
    table.add_row(row.cells(), row.name == "all" ? Tone::Strong : Tone::Plain);
  return table;
}

/// The figures that do not fit a table, a line each.
std::vector<std::string> closing_lines(const ValidationResult& result) {
  const Validation& all = result.summary;
  const OutOfMemoryTable& oom = all.out_of_memory;
  std::vector<std::string> lines;
  lines.push_back(
      fmt::format("step time: mean over families {:.1f} % (families of fewer than {} "
                  "runs pooled), over runs {:.1f} %",
                  100 * all.step_time_family_mean, kPooledRuns, 100 * all.step_time.mean_abs));
  if (const ErrorStatistics& megatron = all.megatron_16_bits; megatron.count + megatron.missing > 0)
    lines.push_back(fmt::format(
        "step time of Megatron-LM in 16 bits on {} or more GPUs: {} runs, mean {:.1f} %, "
        "bias {:+.1f} %",
        kMegatronGpus, megatron.count + megatron.missing, 100 * megatron.mean_abs,
        100 * megatron.bias));
  lines.push_back(fmt::format("peak memory: mean over families {:.1f} %, over runs {:.1f} %",
                              100 * all.memory_family_mean, 100 * all.memory.mean_abs));
  lines.push_back(
      fmt::format("out of memory: {} foretold, {} missed, {} false alarms, {} rightly "
                  "said to fit; right in {:.1f} % of families' runs",
                  oom.true_positive, oom.false_negative, oom.false_positive, oom.true_negative,
                  100 * all.out_of_memory_family_right));
  lines.push_back(
      fmt::format("factors fitted without a family, tested on it (not fitted to): "
                  "{:.1f} %; fitted on a random half, tested on the other: {:.1f} %",
                  100 * result.cross.leave_family_out, 100 * result.cross.random_half));
  lines.push_back(
      fmt::format("the stated 90 % interval holds {:.1f} % of the runs, {:.1f} % of "
                  "those of families left out",
                  100 * all.inside_interval, 100 * result.cross.inside_interval));
  std::string hosts;
  for (const UnfittedHost& family : result.judged_host)
    hosts += fmt::format("{}{} {:.1f} %", hosts.empty() ? "" : ", ", family.family,
                         100 * family.mean_abs_error);
  if (!hosts.empty())
    lines.push_back(
        "with 7.5 µs an operator in place of the host times that were fitted to these families: " +
        hosts);
  constexpr double kTold = 0.01;
  for (const FamilyErrors& family : all.families)
    if (family.twins.least_error >= kTold)
      lines.push_back(fmt::format(
          "{}: {} of {} timed runs have a twin that differs from it in nothing that is "
          "stated; no prediction is nearer than {:.1f} % in the family's mean",
          family.name, family.twins.runs, family.step_time.count, 100 * family.twins.least_error));
  for (const FamilyErrors& family : all.families)
    if (!family.left_out.empty())
      lines.push_back("* not in the means of step times: " + family.left_out);
  return lines;
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string text = "|";
  for (const std::string& cell : cells) text += " " + cell + " |";
  return text + "\n";
}

}  // namespace

std::string validation_text(const ValidationResult& result, std::size_t width, bool color,
                            bool summary_only) {
  std::string text;
  if (!summary_only) text += runs_table(result).text(width, color) + "\n";
  text += families_table(result.summary).text(width, color) + "\n";
  for (const std::string& line : closing_lines(result)) text += wrapped(line, width, 2) + "\n";
  return text;
}

std::string validation_markdown(const ValidationResult& result) {
  std::string text =
      "# How wrong it is\n\n"
      "Step times and memory predicted for runs that others measured and published. Made by\n"
      "`rehearse validate RUNS.json --markdown FILE`; not edited by hand.\n\n"
      "An error is (predicted − measured) / measured. Runs that this program cannot express\n"
      "count as 100 % in the mean of their family. Constants are one set a GPU and framework\n"
      "(`planner/framework.cpp`, `kernels/gpu_generation.cpp`), never one a run.\n\n"
      "Fitted to runs of these families, so that those are no test of them: the sustained rate of\n"
      "Hopper (bf16 runs of dgxc_25.02) and of Blackwell (simumax_b200), the host time an "
      "operator\n"
      "of Megatron-DeepSpeed (vtrain_single) and of nanotron, the share of activations that "
      "nanotron\n"
      "reserves beside saved tensors, the share of memory that Megatron-DeepSpeed's allocator "
      "holds\n"
      "beside tensors (bloom_search), and the widths of intervals. All else is counted, measured "
      "on\n"
      "operators, or judged before any run was predicted. Left-out errors below fit one factor "
      "each\n"
      "to computing on each generation, to communication and to the host, without the family, "
      "drawn\n"
      "to what was judged before. Three kinds of constants are not refitted there: host times "
      "(below\n"
      "stands what the two families they were fitted to come to without them; no other run has "
      "these\n"
      "frameworks' hosts as its bound), shares of reserved memory (of memory alone), "
      "and\n"
      "the widths of intervals, which are tested on the runs left out as they are.\n\n"
      "| family | timed | not expressible | mean % | median % | bias % | worst % | memory runs | "
      "mean % | bias % | out of memory right |\n"
      "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const SummaryRow& row : summary_rows(result.summary)) text += markdown_row(row.cells());
  text += "\n";
  for (const std::string& line : closing_lines(result)) text += "- " + line + "\n";

  text += "\n## Where the families come from\n\n| family | source |\n|---|---|\n";
  for (const FamilyErrors& family : result.summary.families) {
    const auto run =
        std::find_if(result.runs.begin(), result.runs.end(),
                     [&](const MeasuredRun& each) { return each.family == family.name; });
    text += markdown_row({family.name, run->source});
  }
  text += "\n## The worst of each family\n\n| family | run | error % |\n|---|---|---:|\n";
  for (const FamilyErrors& family : result.summary.families)
    if (family.step_time.count > 0)
      text += markdown_row({family.name, "`" + family.step_time.worst_id + "`",
                            signed_percent(family.step_time.worst)});
  std::string reasons;
  for (std::size_t i = 0; i < result.runs.size(); ++i)
    if (!result.predictions[i].not_expressible.empty())
      reasons +=
          markdown_row({"`" + result.runs[i].id + "`", result.predictions[i].not_expressible});
  if (!reasons.empty()) text += "\n## Not expressible\n\n| run | why |\n|---|---|\n" + reasons;
  return text;
}

}  // namespace rehearse
