#include "planner/validate.h"

#include <algorithm>

#include "plan/ensure.h"
#include "plan/json_document.h"
#include "plan/units.h"
#include "planner/framework_memory.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

/// The parts of the step of an average GPU; they add up to the step.
std::vector<Contribution> contributions_of(const PlanOutcome& outcome) {
  static const char* const kWork[kWorkKindCount] = {"matrix products", "attention", "element-wise",
                                                    "recomputation",   "optimizer", "tensor comm."};
  static const char* const kExposed[kCommKindCount] = {
      "tensor comm.",       "context comm.", "gradient reduction", "parameter gathers",
      "pipeline transfers", "scalars",       "expert comm.",       "host memory"};
  std::vector<Contribution> parts;
  const auto add = [&](const char* name, double seconds) {
    for (Contribution& part : parts)
      if (part.name == name) {
        part.seconds += seconds;
        return;
      }
    parts.push_back({name, seconds});
  };
  double members = 0;
  for (const Device& device : outcome.devices) members += device.members;
  for (std::size_t d = 0; d < outcome.devices.size(); ++d) {
    const DeviceMetrics& time = outcome.metrics.devices[d];
    const double weight = outcome.devices[d].members / members;
    for (std::size_t i = 0; i < kWorkKindCount; ++i) add(kWork[i], weight * time.work_s[i]);
    for (std::size_t i = 0; i < kCommKindCount; ++i) add(kExposed[i], weight * time.exposed_s[i]);
    add("bubble", weight * time.bubble_s);
    add("waiting", weight * time.waiting_s);
    add("host", weight * time.host_s);
  }
  std::erase_if(parts, [](const Contribution& part) { return part.seconds <= 0; });
  std::stable_sort(parts.begin(), parts.end(), [](const Contribution& a, const Contribution& b) {
    return a.seconds > b.seconds;
  });
  return parts;
}

double memory_figure(MemoryFigure figure, const StageBytes& bytes, double reserved) {
  switch (figure) {
    case MemoryFigure::Allocated:
      return bytes.standing + bytes.passing;
    case MemoryFigure::Reserved:
      return reserved;
    case MemoryFigure::Device:
      return reserved + bytes.beside;
    case MemoryFigure::Standing:
      return bytes.standing;
  }
  return reserved;
}

void fill_memory(const PlanOutcome& outcome, const MeasuredRun& run, const FrameworkCosts& costs,
                 RunPrediction& prediction) {
  for (const StageReport& stage : outcome.stages) {
    const StageBytes bytes =
        framework_bytes_of_stage(stage.memory, run.model, run.plan, run.workload.seq_len, costs);
    const double reserved = reserved_bytes(bytes, costs);
    prediction.memory_bytes =
        std::max(prediction.memory_bytes, memory_figure(costs.memory_figure, bytes, reserved));
    if (reserved + bytes.beside <= prediction.device_bytes) continue;
    prediction.device_bytes = reserved + bytes.beside;
    prediction.reserved_bytes = reserved;
    prediction.capacity_bytes = stage.memory_capacity_bytes;
  }
  prediction.fits = prediction.device_bytes <= prediction.capacity_bytes;
}

std::string sentence_of(const PlanOutcome& outcome) {
  std::string text;
  for (const PlanFault& fault : outcome.faults) text += (text.empty() ? "" : "; ") + fault.message;
  return text;
}

// A prediction as bytes between processes of this program; JSON keeps every bit of a double.

std::string packed(const RunPrediction& prediction) {
  JsonValue object = JsonValue::object();
  object.add("why", JsonValue::of(prediction.not_expressible));
  JsonValue& numbers = object.add("numbers", JsonValue::list());
  for (const double number :
       {prediction.step_time_s, prediction.memory_bytes, prediction.reserved_bytes,
        prediction.device_bytes, prediction.capacity_bytes, prediction.relative_error})
    numbers.items.push_back(JsonValue::of(number));
  object.add("fits", JsonValue::of(prediction.fits));
  JsonValue& parts = object.add("parts", JsonValue::object());
  for (const Contribution& part : prediction.contributions)
    parts.add(part.name, JsonValue::of(part.seconds));
  return to_text(object, JsonLayout::Compact);
}

RunPrediction unpacked(const JsonValue& object) {
  const auto& numbers = object.find("numbers")->items;
  RunPrediction prediction{.not_expressible = object.find("why")->text,
                           .step_time_s = numbers[0].number,
                           .memory_bytes = numbers[1].number,
                           .reserved_bytes = numbers[2].number,
                           .device_bytes = numbers[3].number,
                           .capacity_bytes = numbers[4].number,
                           .fits = object.find("fits")->boolean,
                           .relative_error = numbers[5].number,
                           .contributions = {}};
  for (const JsonMember& part : object.find("parts")->members)
    prediction.contributions.push_back({part.key, part.value.number});
  return prediction;
}

}  // namespace

RunPrediction predict(const MeasuredRun& run) {
  RunPrediction prediction;
  prediction.not_expressible = run.not_expressible;
  if (!prediction.not_expressible.empty()) return prediction;
  Problems problems;
  const Cluster cluster = Cluster::build(run.cluster, problems);
  if (!problems.empty()) {
    prediction.not_expressible = problems.all().front().message;
    return prediction;
  }
  EvaluationOptions options;
  options.framework = framework_costs(run.framework, run.plan, run.cluster.groups.front().node.gpu);
  options.framework.blocking_launches = run.blocking_launches;
  options.framework.computing = run.computing;
  options.framework.host = run.host;
  if (run.relative_error > 0) options.framework.relative_error = run.relative_error;
  options.lowering.spread = Spread();  // as every run of the program has it
  options.simulate_when_too_big = run.measured.step_time_s > 0;
  const PlanOutcome outcome = evaluate(run.model, run.workload, cluster, run.plan, options);
  prediction.not_expressible = sentence_of(outcome);
  if (!prediction.not_expressible.empty()) return prediction;
  fill_memory(outcome, run, options.framework, prediction);
  prediction.relative_error = options.framework.relative_error;
  prediction.step_time_s = outcome.metrics.step_time_s;
  if (prediction.step_time_s > 0) prediction.contributions = contributions_of(outcome);
  return prediction;
}

std::vector<RunPrediction> predict_all(const std::vector<MeasuredRun>& runs, int jobs,
                                       const std::function<void(std::size_t)>& on_done) {
  // Starting a process costs as much as a small run; so each takes several, in the order of the
  // file, few enough that the last ones end together.
  constexpr std::size_t kRunsPerProcess = 12;
  std::vector<WorkerTask> tasks;
  for (std::size_t first = 0; first < runs.size(); first += kRunsPerProcess) {
    const std::size_t last = std::min(runs.size(), first + kRunsPerProcess);
    tasks.push_back({.name = "runs " + runs[first].id + " to " + runs[last - 1].id,
                     .work = [&runs, first, last] {
                       std::string text = "[";
                       for (std::size_t i = first; i < last; ++i)
                         text += (i > first ? "," : "") + packed(predict(runs[i]));
                       return text + "]";
                     }});
  }
  const std::vector<std::string> answers = run_in_workers(tasks, jobs, [&](std::size_t done) {
    if (on_done) on_done(std::min(runs.size(), done * kRunsPerProcess));
  });
  std::vector<RunPrediction> predictions;
  for (const std::string& answer : answers) {
    Problems problems;
    const JsonDocument document = parse_json(answer, "a worker's answer", problems);
    ensure(document.parsed, "a worker answers in JSON");
    for (const JsonValue& item : document.root.items) predictions.push_back(unpacked(item));
  }
  ensure(predictions.size() == runs.size(), "every run has a prediction");
  return predictions;
}

}  // namespace rehearse
