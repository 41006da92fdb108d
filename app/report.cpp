#include "app/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/number_format.h"
#include "app/report_parts.h"
#include "app/text_table.h"
#include "plan/noun_tables.h"
#include "plan/units.h"

namespace rehearse {
namespace {

constexpr std::size_t kTextWidth = 100;

std::string head_of(const ScenarioSummary& scenario, const VariantResult& base,
                    const ReportStyle& style) {
  const Scenario& asked = base.variant.scenario;
  const int seq_len = asked.workload.seq_len > 0 ? asked.workload.seq_len : asked.model.max_seq_len;
  std::string text = toned(printable(scenario.title), Tone::Strong, style.color) + "\n";
  if (!scenario.description.empty())
    text += wrapped(printable(scenario.description), kTextWidth, 0) + "\n";
  text += fmt::format("{} ({} parameters) · {} on {} · {} sequences of {} tokens a step\n",
                      printable(asked.model.name),
                      format_count(static_cast<double>(count_parameters(asked.model).total())),
                      counted(base.gpus, "GPU"), counted(base.nodes, "node"),
                      asked.workload.global_batch, seq_len);
  return text;
}

std::string winner_text(const VariantResult& base, const ReportStyle& style) {
  const auto winner = base.winner();
  if (!winner) return toned("No plan fits.", Tone::Bad, style.color) + "\n";
  const PlanOutcome& best = base.plans[*winner];
  std::string text;
  const std::string why = why_it_wins(base);
  if (!why.empty())
    text += toned(wrapped("* " + printable(why), kTextWidth, 2), Tone::Good, style.color) + "\n";
  const double tokens = base.variant.scenario.workload.tokens;
  if (tokens > 0)
    text += fmt::format("  {} tokens take {} with {}.\n", format_count(tokens),
                        format_seconds(tokens / best.tokens_per_s), printable(best.plan.name));
  return text;
}

/// "step 6.54 s, in 9 of 10 cases 5.23 to 8.18 s (± 25 %): …"
std::string expected_error_text(const PlanOutcome& outcome) {
  const ExpectedError& error = outcome.expected_error;
  if (error.relative_error <= 0) return "";
  const double step_s = outcome.metrics.step_time_s, factor = 1 + error.relative_error;
  return wrapped(
             fmt::format("Expected error of its step of {}: 90 % interval {} to {} (± {:.0f} %), "
                         "since {}.",
                         format_seconds(step_s), format_seconds(step_s / factor),
                         format_seconds(step_s * factor), 100 * error.relative_error, error.source),
             kTextWidth, 2) +
         "\n";
}

/// All reasons of the plans that cannot be, what their framework would not do, and what is too big
/// about those that do not fit.
std::string obstacles(const VariantResult& variant) {
  std::string text;
  for (const PlanOutcome& outcome : variant.plans) {
    const std::string name = printable(outcome.plan.name);
    for (const PlanFault& fault : outcome.faults) {
      std::string line = fmt::format("  {} cannot be: {}", name, printable(fault.message));
      if (!fault.hint.empty()) line += fmt::format(" ({})", printable(fault.hint));
      text += wrapped(line, kTextWidth, 4) + "\n";
    }
    for (const std::string& note : outcome.notes)
      text += wrapped(fmt::format("  {}: {}.", name, printable(note)), kTextWidth, 4) + "\n";
    if (!is_possible(outcome) || outcome.fits) continue;
    const StageReport& stage = fullest_stage(outcome);
    const auto largest = std::max_element(
        stage.memory.parts.begin(), stage.memory.parts.end(),
        [](const MemoryPart& a, const MemoryPart& b) { return a.bytes < b.bytes; });
    text +=
        wrapped(fmt::format("  {} does not fit: stage {} needs {} of {} a GPU, {} of it {}; its "
                            "times are what they would be if it did.",
                            name, stage.stage, format_bytes(stage.memory.total_bytes()),
                            format_bytes(stage.memory_capacity_bytes), format_bytes(largest->bytes),
                            largest->name),
                kTextWidth, 4) +
        "\n";
  }
  return text;
}

std::string assumptions_text(const PlanOutcome& outcome) {
  std::string evidence;
  for (std::size_t i = 0; i < std::size(outcome.evidence_share); ++i) {
    if (outcome.evidence_share[i] < 5e-4) continue;
    evidence +=
        fmt::format("{}{} % {}", evidence.empty() ? "" : ", ", percent(outcome.evidence_share[i]),
                    cost_source_name(static_cast<CostSource>(i)));
  }
  std::string text = "Assumptions\n";
  const auto add = [&](const std::string& sentence) {
    text += wrapped("  - " + printable(sentence), kTextWidth, 4) + "\n";
  };
  for (const std::string& sentence : outcome.assumptions) add(sentence);
  add("Prices of operators, by compute time: " + evidence + ".");
  add(
      fmt::format("MFU counts the model's FLOPs (causal half of attention, nothing recomputed) "
                  "over the data sheet's {} peak of all GPUs; counting what is recomputed too "
                  "(HFU) it is {} %.",
                  name_of(precision_names(), outcome.plan.precision), percent(outcome.hfu)));
  return text;
}

std::string scenario_text(const RunResult& result, std::size_t scenario, const ReportStyle& style) {
  const VariantResult* base = result.base_of(scenario);
  std::string text;
  if (base != nullptr) {
    text += head_of(result.scenarios[scenario], *base, style) + "\n";
    text += plans_table(*base).text(style.width, style.color) + "\n";
    text += plan_list(base->plans);
    const std::string hindrance = obstacles(*base);
    if (!hindrance.empty()) text += "\n" + hindrance;
    text += "\n" + winner_text(*base, style);
    if (const auto winner = base->winner()) {
      const PlanOutcome& best = base->plans[*winner];
      text += fmt::format("\nWhere a step of {} goes (mean of its {} GPUs)\n",
                          printable(best.plan.name), world_size(best.plan));
      text += breakdown_table(best).text(style.width, style.color);
      text += expected_error_text(best);
    }
    const TextTable balance = balance_table(base->plans);
    if (!balance.empty())
      text += "\nWhat balancing gains\n" + balance.text(style.width, style.color);
    if (const auto winner = base->winner()) {
      const PlanOutcome& best = base->plans[*winner];
      text += fmt::format("\nMemory of its fullest GPU (stage {})\n", fullest_stage(best).stage);
      text += memory_table(best).text(style.width, style.color);
      if (!best.used_links.empty())
        text +=
            "\nIts busiest link of each kind\n" + links_table(best).text(style.width, style.color);
    }
  }
  const TextTable variations = variants_table(result, scenario);
  if (!variations.empty()) text += "\nWhat if\n" + variations.text(style.width, style.color);
  if (base != nullptr)
    if (const auto winner = base->winner()) text += "\n" + assumptions_text(base->plans[*winner]);
  return text;
}

}  // namespace

std::string report_text(const RunResult& result, const ReportStyle& style) {
  std::string text;
  for (std::size_t s = 0; s < result.scenarios.size(); ++s) {
    const std::string part = scenario_text(result, s, style);
    if (!text.empty() && !part.empty()) text += "\n";
    text += part;
  }
  return text;
}

}  // namespace rehearse
