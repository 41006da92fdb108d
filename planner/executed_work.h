#pragma once
#include <array>
#include <vector>

#include "kernels/cost_model.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

inline constexpr int kCostSourceCount = static_cast<int>(CostSource::DataSheet) + 1;

/// What the GPUs of a whole step execute, counted from the operator lists.
struct ExecutedWork {
  /// FLOPs of every operator on every rank, recomputed forwards included.
  double flops = 0;
  /// Seconds of all ranks together by the evidence their prices rest on, undisturbed.
  std::array<double, kCostSourceCount> seconds_by_source{};
};

/// `stage_costs[s]` prices the operators of stage s. REQUIRES: the plan is resolved and without
/// faults, the workload has its sequence length.
ExecutedWork executed_work(const Model& model, const Plan& plan, const Workload& workload,
                           const std::vector<const CostModel*>& stage_costs);

}  // namespace rehearse
