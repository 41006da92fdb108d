#pragma once
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "strategies/check_plan.h"

namespace rehearse {

/// Why a plan cannot be of what it says of experts and latent attention; empty where it can.
/// REQUIRES: dp resolved, all degrees ≥ 1.
std::vector<PlanFault> expert_faults(const Plan& plan, const Model& model);

}  // namespace rehearse
