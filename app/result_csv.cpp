#include <fmt/format.h>

#include "app/result_json.h"
#include "plan/json_value.h"

namespace rehearse {
namespace {

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + '"';
}

/// Collects the head from the first row, so that names and values cannot fall out of step.
class Csv {
 public:
  void cell(const std::string& name, const std::string& value) {
    if (!has_head_) head_ += (head_.empty() ? "" : ",") + quoted(name);
    row_ += (is_first_ ? "" : ",") + quoted(value);
    is_first_ = false;
  }
  void cell(const std::string& name, double value) { cell(name, number_text(value)); }
  void cell(const std::string& name, int value) { cell(name, std::to_string(value)); }
  void end_row() {
    has_head_ = true;
    rows_ += row_ + "\r\n";
    row_.clear();
    is_first_ = true;
  }
  std::string text() const { return head_ + "\r\n" + rows_; }

 private:
  std::string head_, row_, rows_;
  bool has_head_ = false, is_first_ = true;
};

const char* prefix_of(TimeGroup group) {
  switch (group) {
    case TimeGroup::Compute:
      return "compute";
    case TimeGroup::Communication:
      return "exposed";
    case TimeGroup::Idle:
      return "idle";
  }
  return "?";
}

/// Cells of a plan that cannot be are empty, under the same names.
void add_step_cells(Csv& csv, const PlanOutcome& outcome, const VariantResult& variant) {
  const bool possible = is_possible(outcome);
  const auto cell = [&](const std::string& name, double value) {
    possible ? csv.cell(name, value) : csv.cell(name, std::string());
  };
  const DeviceMetrics mean = possible ? mean_device(outcome) : DeviceMetrics{};
  cell("step_time_s", outcome.metrics.step_time_s);
  cell("step_time_relative_error", outcome.expected_error.relative_error);
  cell("tokens_per_s", outcome.tokens_per_s);
  cell("tokens_per_s_per_gpu", outcome.tokens_per_s / variant.gpus);
  cell("mfu", outcome.mfu);
  cell("hfu", outcome.hfu);
  for (const TimePart& part : time_parts(mean))
    cell(fmt::format("{}_{}_s", prefix_of(part.group), part.key), part.seconds);
  cell("load_balance", outcome.metrics.load_balance);
  cell("peak_memory_bytes", possible ? fullest_stage(outcome).memory.total_bytes() : 0);
  cell("memory_capacity_bytes", possible ? fullest_stage(outcome).memory_capacity_bytes : 0);
}

}  // namespace

std::string result_csv(const RunResult& result) {
  Csv csv;
  for (const VariantResult& variant : result.variants) {
    const auto winner = variant.winner();
    for (std::size_t i = 0; i < variant.plans.size(); ++i) {
      const PlanOutcome& outcome = variant.plans[i];
      const Plan& plan = outcome.plan;
      csv.cell("scenario", result.scenarios[variant.scenario].path);
      csv.cell("variant", variant.variant.name);
      csv.cell("plan", plan.name);
      csv.cell("gpus", variant.gpus);
      csv.cell("dp", plan.dp);
      csv.cell("tp", plan.tp);
      csv.cell("pp", plan.pp);
      csv.cell("virtual_stages", plan.virtual_stages);
      csv.cell("micro_batch", plan.micro_batch);
      csv.cell("zero", plan.zero);
      csv.cell("possible", std::string(is_possible(outcome) ? "yes" : "no"));
      csv.cell("fits", std::string(is_usable(outcome) ? "yes" : "no"));
      csv.cell("winner", std::string(winner == i ? "yes" : "no"));
      add_step_cells(csv, outcome, variant);
      csv.cell("fault", outcome.faults.empty() ? std::string() : outcome.faults[0].message);
      csv.end_row();
    }
  }
  return csv.text();
}

}  // namespace rehearse
