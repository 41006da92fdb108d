#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/scenario.h"
#include "planner/evaluate.h"

namespace rehearse {

/// All plans of one variant of a scenario.
struct VariantResult {
  std::size_t index = 0;     ///< among all variants of the run, so that shards can be merged
  std::size_t scenario = 0;  ///< index into RunResult::scenarios
  Variant variant;
  int gpus = 0, nodes = 0;
  std::vector<PlanOutcome> plans;  ///< in the scenario's order
  std::optional<std::size_t> winner() const;
};

/// The first variant of a scenario is the file as it stands; the others differ from it.
struct ScenarioSummary {
  std::string path, title, description;
  std::size_t first_variant = 0;  ///< index of the file as it stands
};

/// Everything that a run found out; printers turn it into a table, JSON and CSV.
struct RunResult {
  std::vector<ScenarioSummary> scenarios;
  LoweringOptions lowering;
  std::vector<VariantResult> variants;  ///< those of this shard, in order

  const VariantResult* base_of(std::size_t scenario) const;
};

/// A plan that cannot be has no times; one that does not fit has, for comparison.
inline bool is_possible(const PlanOutcome& outcome) { return outcome.faults.empty(); }
inline bool is_usable(const PlanOutcome& outcome) { return is_possible(outcome) && outcome.fits; }

enum class TimeGroup : std::uint8_t { Compute, Communication, Idle };

/// A part of the step; all parts of a step add up to it.
struct TimePart {
  TimeGroup group = TimeGroup::Compute;
  const char* key = "";    ///< in files: "gemm"
  const char* label = "";  ///< for people: "matrix products"
  double seconds = 0;
};
std::vector<TimePart> time_parts(const DeviceMetrics& metrics);
double sum_of(const std::vector<TimePart>& parts, TimeGroup group);

/// The average over the plan's GPUs; its parts add up to the step as each GPU's do.
DeviceMetrics mean_device(const PlanOutcome& outcome);

/// How many more steps a way to share out work makes in the same time than the first of its
/// comparison, as a fraction.
double balance_gain(const BalanceComparison& comparison, const BalanceWay& way);

/// The stage whose memory is fullest, as a share of its GPUs'. REQUIRES: is_possible.
const StageReport& fullest_stage(const PlanOutcome& outcome);

/// "tp 8 · pp 8×3 · dp 16 · 1f1b · micro-batch 1 · ZeRO-1 · recompute selective".
std::string plan_summary(const Plan& plan);

/// Why the winner is ahead of the next best usable plan: the part of the step that differs most,
/// as a sentence. Empty where nothing can be compared.
std::string why_it_wins(const VariantResult& variant);

/// There are variants, and no plan of any of them fits or can be.
bool is_infeasible(const RunResult& result);

}  // namespace rehearse
