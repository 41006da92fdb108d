#pragma once
#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cost_model.h"
#include "kernels/price_cache.h"
#include "plan/plan.h"

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

/// An operator and what its price rests on.
struct PricedOperator {
  std::string name;  ///< "head wgrad"
  CostSource source = CostSource::DataSheet;
  double relative_error = 0;  ///< expected, of this price alone
};

/// What the computing time of a result rests on.
struct PriceEvidence {
  double relative_error = 0;            ///< expected, mean by time; each price for itself
  double data_sheet_error = 0;          ///< the data-sheet prices' part of it
  std::vector<PricedOperator> weakest;  ///< of the least evidence, weakest source first
};

/// `seconds_by_source`: what each source of prices stands for. All empty where nothing was priced.
PriceEvidence price_evidence(const std::vector<const EvidenceLog*>& logs,
                             const std::array<double, kCostSourceCount>& seconds_by_source);

/// Two sentences for the list of assumptions; none where nothing was priced.
std::vector<std::string> evidence_sentences(const PriceEvidence& evidence);

/// How wrong a whole step's time is expected to be.
struct ExpectedError {
  /// 90 % interval of the step: from time / (1 + it) to time · (1 + it). 0: not told.
  double relative_error = 0;
  std::string source;  ///< where that is from, a sentence without its full stop
};

/// What published runs say of a step whose interval by framework, or calibration, is `base`.
/// Prices from data sheets, which no published run rests on, widen it.
ExpectedError expected_error(double base, bool calibrated, Framework framework,
                             const PriceEvidence& evidence);

}  // namespace rehearse
