#pragma once
#include <string>
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

/// One reason why a plan cannot be: the field at fault (pointer inside the plan: "/tp"), a
/// sentence and a hint.
struct PlanFault {
  std::string pointer;
  std::string message;
  std::string hint;
};

/// Fills dp (all GPUs that tp·cp·pp leave) and the workload's sequence length, and turns choices
/// that follow from others into explicit ones.
Plan resolve(Plan plan, int gpus);

/// Every reason why the plan cannot be on that many GPUs: sizes that do not divide, more stages
/// than layers, groups larger than the cluster, schedules that do not exist. Empty if it can.
std::vector<PlanFault> plan_faults(const Plan& plan, const Model& model, const Workload& workload,
                                   int gpus);

}  // namespace rehearse
