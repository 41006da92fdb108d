#include "app/validation_report.h"
#include "plan/json_value.h"

namespace rehearse {
namespace {

JsonValue statistics_json(const ErrorStatistics& of, const double* family_mean) {
  JsonValue object = JsonValue::object();
  object.add("count", JsonValue::of(of.count));
  object.add("not_expressible", JsonValue::of(of.missing));
  object.add("mean_abs_error", JsonValue::of(of.mean_abs));
  if (family_mean != nullptr) object.add("family_mean_abs_error", JsonValue::of(*family_mean));
  object.add("median_abs_error", JsonValue::of(of.median_abs));
  object.add("bias", JsonValue::of(of.bias));
  object.add("worst", JsonValue::of(of.worst));
  object.add("worst_run", JsonValue::of(of.worst_id));
  return object;
}

JsonValue out_of_memory_json(const OutOfMemoryTable& table) {
  JsonValue object = JsonValue::object();
  object.add("true_positive", JsonValue::of(table.true_positive));
  object.add("false_positive", JsonValue::of(table.false_positive));
  object.add("true_negative", JsonValue::of(table.true_negative));
  object.add("false_negative", JsonValue::of(table.false_negative));
  return object;
}

JsonValue run_json(const MeasuredRun& run, const RunPrediction& prediction) {
  JsonValue object = JsonValue::object();
  object.add("id", JsonValue::of(run.id));
  object.add("family", JsonValue::of(run.family));
  object.add("framework", JsonValue::of(name_of(framework_names(), run.framework)));
  const auto add_positive = [&](const char* key, double value) {
    if (value > 0) object.add(key, JsonValue::of(value));
  };
  add_positive("measured_step_time_s", run.measured.step_time_s);
  add_positive("predicted_step_time_s", prediction.step_time_s);
  double error = 0;
  if (step_time_error(run, prediction, error)) {
    object.add("step_time_error", JsonValue::of(error));
    const double factor = 1 + prediction.relative_error;
    JsonValue& interval = object.add("step_time_interval_s", JsonValue::list());
    interval.items.push_back(JsonValue::of(prediction.step_time_s / factor));
    interval.items.push_back(JsonValue::of(prediction.step_time_s * factor));
  }
  add_positive("measured_memory_bytes", run.measured.peak_memory_bytes);
  add_positive("predicted_memory_bytes", prediction.memory_bytes);
  if (memory_error(run, prediction, error)) object.add("memory_error", JsonValue::of(error));
  add_positive("predicted_reserved_bytes", prediction.reserved_bytes);
  add_positive("predicted_device_bytes", prediction.device_bytes);
  object.add("measured_out_of_memory", JsonValue::of(run.measured.out_of_memory));
  object.add("predicted_out_of_memory", JsonValue::of(!prediction.fits));
  JsonValue& parts = object.add("parts_s", JsonValue::object());
  for (const Contribution& part : prediction.contributions)
    parts.add(part.name, JsonValue::of(part.seconds));
  return object;
}

}  // namespace

std::string validation_json(const ValidationResult& result) {
  const Validation& summary = result.summary;
  JsonValue root = JsonValue::object();
  JsonValue& overall = root.add("overall", JsonValue::object());
  overall.add("step_time", statistics_json(summary.step_time, &summary.step_time_family_mean));
  overall.add("memory", statistics_json(summary.memory, &summary.memory_family_mean));
  overall.add("out_of_memory", out_of_memory_json(summary.out_of_memory));
  overall.add("megatron_16_bits", statistics_json(summary.megatron_16_bits, nullptr));
  overall.add("leave_family_out_error", JsonValue::of(result.cross.leave_family_out));
  overall.add("random_half_error", JsonValue::of(result.cross.random_half));
  overall.add("inside_interval", JsonValue::of(summary.inside_interval));
  overall.add("left_out_inside_interval", JsonValue::of(result.cross.inside_interval));
  JsonValue& families = root.add("families", JsonValue::object());
  for (const FamilyErrors& family : summary.families) {
    JsonValue& object = families.add(family.name, JsonValue::object());
    object.add("step_time", statistics_json(family.step_time, nullptr));
    object.add("memory", statistics_json(family.memory, nullptr));
    object.add("out_of_memory", out_of_memory_json(family.out_of_memory));
    if (!family.left_out.empty()) object.add("left_out_of_means", JsonValue::of(family.left_out));
  }
  JsonValue runs = JsonValue::list(), missing = JsonValue::list();
  for (std::size_t i = 0; i < result.runs.size(); ++i) {
    const RunPrediction& prediction = result.predictions[i];
    if (prediction.not_expressible.empty()) {
      runs.items.push_back(run_json(result.runs[i], prediction));
      continue;
    }
    JsonValue object = JsonValue::object();
    object.add("id", JsonValue::of(result.runs[i].id));
    object.add("family", JsonValue::of(result.runs[i].family));
    object.add("reason", JsonValue::of(prediction.not_expressible));
    missing.items.push_back(std::move(object));
  }
  root.add("runs", std::move(runs));
  root.add("not_expressible", std::move(missing));
  return to_text(root);
}

}  // namespace rehearse
