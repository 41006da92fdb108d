#include "runtime/train/train_report.h"

#include <algorithm>
#include <cstdio>

#include "plan/json_value.h"
#include "plan/rank_map.h"
#include "plan/units.h"
#include "runtime/train/rank_memory.h"
#include "runtime/train/sequence_tables.h"

namespace rehearse {
namespace {

constexpr auto kRewrite = std::chrono::milliseconds(100);
constexpr auto kLogEntry = std::chrono::seconds(30);

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

/// Samples that all replicas together have had.
std::int64_t samples_of(const TrainResult& result, const PlanFile& file) {
  return static_cast<std::int64_t>(result.steps.size()) * file.workload.global_batch;
}

/// Rows and columns: what of the data the ranks have had.
std::string data_text(const TrainResult& result, const PlanFile& file) {
  const std::int64_t samples = samples_of(result, file);
  std::string text =
      std::to_string(samples) + " samples of " + std::to_string(file.workload.seq_len) +
      " tokens (" + name_of(partition_names(), result.partition) + "), " +
      fixed(static_cast<double>(samples) / static_cast<double>(result.samples_per_epoch), 3) +
      " epochs";
  if (file.plan.dp > 1) {
    const auto [least, most] = std::minmax_element(
        result.data.begin(), result.data.end(),
        [](const DataCount& a, const DataCount& b) { return a.samples < b.samples; });
    text += "; " + std::to_string(least->samples);
    if (least->samples < most->samples) text += " to " + std::to_string(most->samples);
    text += " a replica";
  }
  if (file.plan.cp > 1)
    text += "; " + std::to_string(file.workload.seq_len / file.plan.cp) +
            " tokens of each a context rank";
  return text + "\n";
}

/// What the devices do of what they could, and what they hold.
std::string rate_text(const TrainResult& result) {
  std::string text = format_flops(result.model_flops / result.median_step_s()) + " of model FLOPs";
  if (result.mfu() > 0)
    text += ", " + fixed(100 * result.mfu(), 1) + " % MFU of " +
            (result.ranks > 1 ? std::to_string(result.ranks) + " times " : std::string()) +
            format_flops(result.peak.flops_per_s) + " (" + result.peak.source + ")";
  return text + "\npeak memory of the fullest rank " + fullest_rank_text(result.memory) + "\n";
}

/// Of each rank, by part.
JsonValue memory_json(const TrainResult& result) {
  JsonValue ranks = JsonValue::list();
  for (std::size_t rank = 0; rank < result.memory.size(); ++rank) {
    JsonValue item = JsonValue::object();
    double bytes = 0;
    for (const double part : result.memory[rank]) bytes += part;
    item.add("peak_bytes", JsonValue::of(bytes));
    JsonValue parts = JsonValue::object();
    for (const auto& [name, of_part] : rank_memory(0, 0, result.memory[rank]).parts)
      parts.add(name, JsonValue::of(of_part));
    item.add("parts", std::move(parts));
    ranks.items.push_back(std::move(item));
  }
  return ranks;
}

/// The samples of each rank, and which of their tokens.
JsonValue data_json(const TrainResult& result, const PlanFile& file) {
  JsonValue data = JsonValue::object();
  data.add("partition", JsonValue::of(name_of(partition_names(), result.partition)));
  data.add("samples", JsonValue::of(samples_of(result, file)));
  data.add("samples_per_epoch", JsonValue::of(result.samples_per_epoch));
  JsonValue ranks = JsonValue::list();
  const RankMap map(file.plan);
  for (std::size_t rank = 0; rank < result.data.size(); ++rank) {
    const Coordinates at = map.coordinates(Rank{static_cast<int>(rank)});
    JsonValue item = JsonValue::object();
    item.add("replica", JsonValue::of(at.data));
    item.add("samples", JsonValue::of(result.data[rank].samples));
    item.add("tokens", JsonValue::of(result.data[rank].tokens));
    JsonValue columns = JsonValue::list();
    for (const TokenRange& range : context_ranges(file.workload.seq_len, file.plan.cp, at.context,
                                                  holds_two_pieces(file.plan))) {
      JsonValue ends = JsonValue::list();
      ends.items = {JsonValue::of(range.begin), JsonValue::of(range.end)};
      columns.items.push_back(std::move(ends));
    }
    item.add("columns", std::move(columns));
    ranks.items.push_back(std::move(item));
  }
  data.add("ranks", std::move(ranks));
  return data;
}

}  // namespace

std::string progress_text(const StepReport& report, double step_s, std::int64_t steps,
                          const PlanFile& file) {
  const double tokens = static_cast<double>(file.workload.global_batch) * file.workload.seq_len;
  char numbers[128];
  std::snprintf(numbers, sizeof numbers, "loss %.4f  norm %.3g  rate %.3g  ", report.loss,
                report.gradient_norm, report.rate);
  return "step " + std::to_string(report.step + 1) + " of " + std::to_string(steps) + "  " +
         numbers + format_count(tokens / step_s) + " tokens/s";
}

ProgressLine::ProgressLine(std::int64_t steps, bool on_terminal)
    : on_terminal_(on_terminal), steps_(steps) {}

ProgressLine::~ProgressLine() {
  if (on_terminal_ && shown_) std::fputc('\n', stderr);
}

void ProgressLine::show(const StepReport& report, double step_s, const PlanFile& file) {
  const auto now = Clock::now();
  const bool is_last = report.step + 1 == steps_;
  const bool is_due =
      on_terminal_ ? !shown_ || is_last || now - last_ >= kRewrite : now - last_ >= kLogEntry;
  if (!is_due) return;
  last_ = now;
  shown_ = true;
  const std::string text = progress_text(report, step_s, steps_, file);
  // One call, so that a launcher that forwards it does not tear it apart.
  std::fputs((on_terminal_ ? "\r" + text + "\033[K" : text + "\n").c_str(), stderr);
  std::fflush(stderr);
}

std::string result_text(const TrainResult& result, const PlanFile& file) {
  if (result.steps.empty()) return "nothing was left to train\n";
  const double step_s = result.median_step_s();
  std::string text = "loss " + fixed(result.steps.front().loss, 4) + " at step " +
                     std::to_string(result.steps.front().step + 1) + ", " +
                     fixed(result.steps.back().loss, 4) + " at step " +
                     std::to_string(result.steps.back().step + 1) + "\n";
  text += format_count(result.tokens_per_step / step_s) + " tokens/s on " +
          std::to_string(result.ranks) + (result.ranks == 1 ? " rank" : " ranks") +
          "; a step takes " + format_seconds(step_s) + " (median of " +
          std::to_string(result.steps.size()) + ")";
  if (file.step_time_s > 0) {
    const double error = (file.step_time_s - step_s) / step_s;
    text += ", " + format_seconds(file.step_time_s) + " predicted (" + (error > 0 ? "+" : "") +
            fixed(100 * error, 1) + " %)";
  } else {
    text += "; nothing was predicted";
  }
  return text + "\n" + rate_text(result) + data_text(result, file);
}

std::string result_json(const TrainResult& result, const PlanFile& file) {
  JsonValue root = JsonValue::object();
  root.add("schema", JsonValue::of("training/1"));
  root.add("title", JsonValue::of(file.title));
  root.add("ranks", JsonValue::of(result.ranks));
  root.add("tokens_per_step", JsonValue::of(result.tokens_per_step));
  const double step_s = result.median_step_s();
  if (step_s > 0) {
    root.add("step_time_s", JsonValue::of(step_s));
    root.add("tokens_per_s", JsonValue::of(result.tokens_per_step / step_s));
    root.add("model_flops_per_s", JsonValue::of(result.model_flops / step_s));
  }
  if (result.mfu() > 0) {
    root.add("peak_flops_per_s", JsonValue::of(result.peak.flops_per_s));
    root.add("peak_source", JsonValue::of(result.peak.source));
    root.add("mfu", JsonValue::of(result.mfu()));
  }
  if (file.step_time_s > 0) root.add("predicted_step_time_s", JsonValue::of(file.step_time_s));
  JsonValue steps = JsonValue::list();
  for (std::size_t i = 0; i < result.steps.size(); ++i) {
    const StepReport& step = result.steps[i];
    JsonValue item = JsonValue::object();
    item.add("step", JsonValue::of(step.step));
    item.add("loss", JsonValue::of(step.loss));
    item.add("gradient_norm", JsonValue::of(step.gradient_norm));
    item.add("rate", JsonValue::of(step.rate));
    item.add("step_time_s", JsonValue::of(result.step_times_s[i]));
    steps.items.push_back(std::move(item));
  }
  root.add("steps", std::move(steps));
  root.add("memory", memory_json(result));
  root.add("data", data_json(result, file));
  JsonValue ranks = JsonValue::list();
  for (const std::vector<double>& bytes : result.traffic_bytes) {
    JsonValue item = JsonValue::object();
    for (int t = 0; t < kTrafficCount; ++t)
      item.add(std::string(traffic_name(static_cast<Traffic>(t))) + "_bytes",
               JsonValue::of(bytes[static_cast<std::size_t>(t)]));
    ranks.items.push_back(std::move(item));
  }
  root.add("traffic", std::move(ranks));
  return to_text(root);
}

}  // namespace rehearse
