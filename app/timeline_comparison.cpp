#include "app/timeline_comparison.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "plan/ensure.h"
#include "plan/json_value.h"

namespace rehearse {
namespace {

using PartKey = std::pair<Stream, std::string>;
struct PartSum {
  double seconds = 0, bytes = 0;
};
using PartSums = std::map<PartKey, PartSum>;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// What each part took of one step, summed over ranks by what they represent.
PartSums sums_of(const Timeline& timeline) {
  std::map<std::int32_t, double> weights;
  for (std::size_t i = 0; i < timeline.ranks.size(); ++i)
    weights[timeline.ranks[i]] = timeline.represented[i];
  PartSums sums;
  for (const TimelineEvent& event : timeline.events) {
    const auto weight = weights.find(event.rank);
    if (weight == weights.end()) continue;
    // Of a message between stages both ends are in a simulated timeline; its sender stands for it.
    const bool is_message =
        event.stream == Stream::PipelineForward || event.stream == Stream::PipelineBackward;
    if (is_message && event.bytes == 0) continue;
    PartSum& sum = sums[{event.stream, timeline.tags[static_cast<std::size_t>(event.tag)]}];
    sum.seconds += weight->second * (event.end_s - event.start_s);
    sum.bytes += weight->second * event.bytes;
  }
  return sums;
}

/// Each part's median over the steps of a file.
PartSums medians_of(const TimelineFile& file) {
  std::map<PartKey, std::pair<std::vector<double>, std::vector<double>>> values;
  for (const Timeline& step : file.timelines)
    for (const auto& [key, sum] : sums_of(step)) {
      values[key].first.push_back(sum.seconds);
      values[key].second.push_back(sum.bytes);
    }
  PartSums medians;
  for (auto& [key, of_steps] : values) {
    // A step in which a part did not happen took none of its time.
    of_steps.first.resize(file.timelines.size(), 0);
    of_steps.second.resize(file.timelines.size(), 0);
    medians[key] = {median(of_steps.first), median(of_steps.second)};
  }
  return medians;
}

double median_step_s(const TimelineFile& file) {
  std::vector<double> times;
  for (const Timeline& step : file.timelines) times.push_back(step.step_time_s);
  return median(times);
}

std::size_t rank_count(const TimelineFile& file) {
  std::size_t count = 0;
  for (const std::int32_t alike : file.timelines.front().represented)
    count += static_cast<std::size_t>(alike);
  return count;
}

double paired_share(const std::vector<ComparedPart>& parts) {
  double all_s = 0, paired_s = 0;
  for (const ComparedPart& part : parts) {
    all_s += part.predicted_s;
    if (part.measured_s > 0) paired_s += part.predicted_s;
  }
  return all_s > 0 ? paired_s / all_s : 1;
}

double sum_of(const RankMemory& memory) {
  double bytes = 0;
  for (const auto& part : memory.parts) bytes += part.second;
  return bytes;
}

double part_of(const RankMemory& memory, const std::string& name) {
  for (const auto& [part, bytes] : memory.parts)
    if (part == name) return bytes;
  return 0;
}

/// The fullest rank of each stage.
void keep_fullest(const TimelineFile& file, std::map<std::int32_t, RankMemory>& stages) {
  for (const RankMemory& memory : file.memory) {
    const auto [at, is_new] = stages.try_emplace(memory.stage, memory);
    if (!is_new && sum_of(memory) > sum_of(at->second)) at->second = memory;
  }
}

std::vector<ComparedMemory> compare_memory(const TimelineFile& predicted,
                                           const std::vector<TimelineFile>& measured) {
  std::map<std::int32_t, RankMemory> simulated, taken;
  keep_fullest(predicted, simulated);
  for (const TimelineFile& file : measured) keep_fullest(file, taken);
  std::vector<ComparedMemory> rows;
  for (const auto& [stage, memory] : simulated) {
    const auto found = taken.find(stage);
    if (found == taken.end()) continue;
    for (const auto& [name, bytes] : memory.parts)
      rows.push_back({stage, name, bytes, part_of(found->second, name)});
    for (const auto& [name, bytes] : found->second.parts)
      if (part_of(memory, name) == 0) rows.push_back({stage, name, 0, bytes});
  }
  return rows;
}

JsonValue memory_json(const TimelineComparison& comparison) {
  JsonValue rows = JsonValue::list();
  for (const ComparedMemory& row : comparison.memory) {
    JsonValue object = JsonValue::object();
    object.add("stage", JsonValue::of(row.stage));
    object.add("part", JsonValue::of(row.part));
    object.add("predicted_bytes", JsonValue::of(row.predicted_bytes));
    object.add("measured_bytes", JsonValue::of(row.measured_bytes));
    rows.items.push_back(std::move(object));
  }
  return rows;
}

JsonValue part_json(const ComparedPart& part) {
  JsonValue object = JsonValue::object();
  object.add("stream", JsonValue::of(stream_name(part.stream)));
  object.add("tag", JsonValue::of(part.tag));
  object.add("predicted_s", JsonValue::of(part.predicted_s));
  object.add("measured_s", JsonValue::of(part.measured_s));
  object.add("predicted_bytes", JsonValue::of(part.predicted_bytes));
  object.add("measured_bytes", JsonValue::of(part.measured_bytes));
  return object;
}

}  // namespace

double relative_difference(double predicted, double measured) {
  return measured > 0 ? (predicted - measured) / measured : 0;
}

std::pair<double, double> worst_memory(const TimelineComparison& comparison) {
  std::map<std::int32_t, std::pair<double, double>> stages;
  for (const ComparedMemory& row : comparison.memory) {
    // What one side cannot tell (the context of a CPU) is no error of the other.
    const bool is_idle = row.part == "idle buffers";
    if (!is_idle && (row.predicted_bytes <= 0 || row.measured_bytes <= 0)) continue;
    stages[row.stage].first += row.predicted_bytes;
    stages[row.stage].second += row.measured_bytes;
  }
  std::pair<double, double> worst;
  for (const auto& [stage, bytes] : stages)
    if (worst.second == 0 || std::abs(relative_difference(bytes.first, bytes.second)) >
                                 std::abs(relative_difference(worst.first, worst.second)))
      worst = bytes;
  return worst;
}

TimelineComparison compare_timelines(const TimelineFile& predicted,
                                     const std::vector<TimelineFile>& measured) {
  ensure(!measured.empty(), "a prediction is compared with something measured");
  TimelineComparison result;
  result.predicted_plan = predicted.plan;
  result.measured_plan = measured.front().plan;
  result.predicted_ranks = rank_count(predicted);
  result.predicted_step_s = median_step_s(predicted);
  std::map<PartKey, ComparedPart> parts;
  for (const auto& [key, sum] : medians_of(predicted)) {
    const auto ranks = static_cast<double>(result.predicted_ranks);
    parts[key].predicted_s = sum.seconds / ranks;
    parts[key].predicted_bytes = sum.bytes / ranks;
  }
  result.steps = measured.front().steps.size();
  for (const TimelineFile& file : measured) {
    result.measured_ranks += rank_count(file);
    result.steps = std::min(result.steps, file.steps.size());
    result.measured_step_s = std::max(result.measured_step_s, median_step_s(file));
    for (const auto& [key, sum] : medians_of(file)) {
      parts[key].measured_s += sum.seconds;
      parts[key].measured_bytes += sum.bytes;
    }
  }
  for (auto& [key, part] : parts) {
    part.stream = key.first;
    part.tag = key.second;
    part.measured_s /= static_cast<double>(result.measured_ranks);
    part.measured_bytes /= static_cast<double>(result.measured_ranks);
    result.parts.push_back(part);
  }
  std::stable_sort(result.parts.begin(), result.parts.end(), [](const auto& a, const auto& b) {
    if (a.stream != b.stream) return a.stream < b.stream;
    return a.predicted_s > b.predicted_s;
  });
  result.paired_share = paired_share(result.parts);
  result.memory = compare_memory(predicted, measured);
  return result;
}

std::string comparison_json(const TimelineComparison& comparison) {
  JsonValue root = JsonValue::object(), parts = JsonValue::list();
  for (const ComparedPart& part : comparison.parts) parts.items.push_back(part_json(part));
  root.add("schema", JsonValue::of("comparison/1"));
  root.add("predicted_plan", JsonValue::of(comparison.predicted_plan));
  root.add("measured_plan", JsonValue::of(comparison.measured_plan));
  root.add("ranks", JsonValue::of(static_cast<std::int64_t>(comparison.measured_ranks)));
  root.add("steps", JsonValue::of(static_cast<std::int64_t>(comparison.steps)));
  root.add("predicted_step_s", JsonValue::of(comparison.predicted_step_s));
  root.add("measured_step_s", JsonValue::of(comparison.measured_step_s));
  root.add("error", JsonValue::of(relative_difference(comparison.predicted_step_s,
                                                      comparison.measured_step_s)));
  root.add("paired_share", JsonValue::of(comparison.paired_share));
  if (const auto [predicted, measured] = worst_memory(comparison); measured > 0) {
    root.add("predicted_memory_bytes", JsonValue::of(predicted));
    root.add("measured_memory_bytes", JsonValue::of(measured));
    root.add("memory_error", JsonValue::of(relative_difference(predicted, measured)));
    root.add("memory", memory_json(comparison));
  }
  root.add("parts", std::move(parts));
  return to_text(root);
}

}  // namespace rehearse
