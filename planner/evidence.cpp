#include "planner/evidence.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "plan/choice_tables.h"

namespace rehearse {
namespace {

constexpr std::size_t kShown = 3;

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
  return text;
}

std::string name_of(const Operator& op) {
  std::string name = operator_name(op.name);
  if (op.pass == Pass::InputGradient) name += " dgrad";
  if (op.pass == Pass::WeightGradient) name += " wgrad";
  return name;
}

/// Weaker evidence first; of equal evidence what may be wrong by more seconds.
bool weaker(const EvidenceLog::Entry* a, const EvidenceLog::Entry* b) {
  if (a->cost.source != b->cost.source) return a->cost.source > b->cost.source;
  return a->cost.relative_error * a->cost.seconds > b->cost.relative_error * b->cost.seconds;
}

std::vector<PricedOperator> weakest_operators(const std::vector<const EvidenceLog*>& logs) {
  std::vector<const EvidenceLog::Entry*> entries;
  for (const EvidenceLog* log : logs)
    for (const auto& entry : log->entries()) entries.push_back(&entry);
  std::stable_sort(entries.begin(), entries.end(), weaker);
  std::vector<PricedOperator> named;
  for (const EvidenceLog::Entry* entry : entries) {
    const std::string name = name_of(entry->op);
    const bool known = std::any_of(named.begin(), named.end(),
                                   [&](const PricedOperator& other) { return other.name == name; });
    if (known) continue;
    named.push_back({name, entry->cost.source, entry->cost.relative_error});
    if (named.size() == kShown) break;
  }
  return named;
}

}  // namespace

Cost EvidenceLog::cost(const Operator& op) const {
  const Cost cost = prices_.cost(op);
  // Unlike prices, evidence is told by name as well.
  ShapeKey key = shape_key(op);
  key.words[0] |= static_cast<std::int64_t>(op.name) << 32;
  if (known_.try_emplace(key, entries_.size()).second) entries_.push_back({op, cost});
  return cost;
}

PriceEvidence price_evidence(const std::vector<const EvidenceLog*>& logs,
                             const std::array<double, kCostSourceCount>& seconds_by_source) {
  std::array<double, kCostSourceCount> seconds{}, wrong{};
  for (const EvidenceLog* log : logs)
    for (const auto& entry : log->entries()) {
      const auto source = static_cast<std::size_t>(entry.cost.source);
      seconds[source] += entry.cost.seconds;
      wrong[source] += entry.cost.seconds * entry.cost.relative_error;
    }
  double total_s = 0, wrong_s = 0, data_sheet_s = 0;
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    if (seconds[i] <= 0) continue;
    const double wrong_here_s = seconds_by_source[i] * wrong[i] / seconds[i];
    total_s += seconds_by_source[i];
    wrong_s += wrong_here_s;
    if (static_cast<CostSource>(i) == CostSource::DataSheet) data_sheet_s = wrong_here_s;
  }
  if (total_s <= 0) return {};
  return {wrong_s / total_s, data_sheet_s / total_s, weakest_operators(logs)};
}

std::vector<std::string> evidence_sentences(const PriceEvidence& evidence) {
  if (evidence.weakest.empty()) return {};
  std::string weakest;
  for (const PricedOperator& op : evidence.weakest)
    weakest += (weakest.empty() ? "" : ", ") + op.name + " (" + cost_source_name(op.source) +
               ", ± " + percent(op.relative_error) + ")";
  return {"prices of operators are expected to be off by " + percent(evidence.relative_error) +
              " in the mean, each for itself",
          "least evidence: " + weakest};
}

ExpectedError expected_error(double base, bool calibrated, Framework framework,
                             const PriceEvidence& evidence) {
  if (calibrated) return {base, "nine in ten runs left out of the calibration lie inside"};
  ExpectedError error{base, "nine in ten of the published runs of "};
  // Of the project's own runner nobody has published runs.
  const bool is_known = framework != Framework::Generic && framework != Framework::Rehearse;
  error.source += is_known ? name_of(framework_names(), framework) : std::string("all frameworks");
  error.source +=
      !is_known ? ", predicted as if their framework were not known, lie inside" : " lie inside";
  // Mean absolute errors as half widths of 90 % intervals, of a normal distribution: 1.645 ·
  // √(π/2).
  constexpr double kIntervalOfMean = 2.06;
  constexpr double kNegligible = 0.005;  // a small operator that no profile has
  if (evidence.data_sheet_error < kNegligible) return error;
  const double sheet = std::log1p(kIntervalOfMean * evidence.data_sheet_error);
  error.relative_error = std::expm1(std::hypot(std::log1p(base), sheet));
  error.source += "; widened for prices from data sheets, which none of them rests on";
  return error;
}

}  // namespace rehearse
