#include "planner/evidence.h"

#include <algorithm>
#include <cstdio>

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

std::string weakest_operators(const std::vector<const EvidenceLog*>& logs) {
  std::vector<const EvidenceLog::Entry*> entries;
  for (const EvidenceLog* log : logs)
    for (const auto& entry : log->entries()) entries.push_back(&entry);
  std::stable_sort(entries.begin(), entries.end(), weaker);
  std::vector<std::string> named;
  std::string text;
  for (const EvidenceLog::Entry* entry : entries) {
    const std::string name = name_of(entry->op);
    if (std::find(named.begin(), named.end(), name) != named.end()) continue;
    named.push_back(name);
    text += (text.empty() ? "" : ", ") + name + " (" + cost_source_name(entry->cost.source) +
            ", ± " + percent(entry->cost.relative_error) + ")";
    if (named.size() == kShown) break;
  }
  return text;
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

std::vector<std::string> evidence_sentences(
    const std::vector<const EvidenceLog*>& logs,
    const std::array<double, kCostSourceCount>& seconds_by_source) {
  std::array<double, kCostSourceCount> seconds{}, wrong{};
  for (const EvidenceLog* log : logs)
    for (const auto& entry : log->entries()) {
      const auto source = static_cast<std::size_t>(entry.cost.source);
      seconds[source] += entry.cost.seconds;
      wrong[source] += entry.cost.seconds * entry.cost.relative_error;
    }
  double total_s = 0, wrong_s = 0;
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    if (seconds[i] <= 0) continue;
    total_s += seconds_by_source[i];
    wrong_s += seconds_by_source[i] * wrong[i] / seconds[i];
  }
  if (total_s <= 0) return {};
  return {"prices of operators are expected to be off by " + percent(wrong_s / total_s) +
              " in the mean, each for itself",
          "least evidence: " + weakest_operators(logs)};
}

}  // namespace rehearse
