#pragma once
#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cost_model.h"
#include "kernels/price_cache.h"

namespace rehearse {

/// Prices through another model and remembers what was asked, to say on what evidence a result
/// stands. Not thread-safe.
class EvidenceLog final : public CostModel {
 public:
  /// `prices` must outlive the log.
  explicit EvidenceLog(const CostModel& prices) : prices_(prices) {}

  Cost cost(const Operator& op) const override;
  double launch_s() const override { return prices_.launch_s(); }
  std::string description() const override { return prices_.description(); }
  const std::vector<CollectiveCurve>& collectives() const override { return prices_.collectives(); }

  struct Entry {
    Operator op;
    Cost cost;
  };
  /// Each operator once, in the order of first asking.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  const CostModel& prices_;
  mutable std::vector<Entry> entries_;
  mutable std::unordered_map<ShapeKey, std::size_t, ShapeKeyHash> known_;
};

/// Two sentences for the list of assumptions: the expected error of the computing time, given the
/// seconds that each source of prices stands for, and the operators priced with the least
/// evidence, weakest source first. Empty where nothing was priced.
std::vector<std::string> evidence_sentences(
    const std::vector<const EvidenceLog*>& logs,
    const std::array<double, kCostSourceCount>& seconds_by_source);

}  // namespace rehearse
