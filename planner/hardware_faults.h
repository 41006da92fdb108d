#pragma once
#include <vector>

#include "plan/plan.h"
#include "strategies/check_plan.h"
#include "topologies/cluster.h"

namespace rehearse {

/// Data-sheet rate of a GPU's units for a precision; 0 where it has none.
double peak_flops_of(const GpuSpec& gpu, Precision precision);

/// What a plan asks for that the cluster's GPUs or hosts do not have: units of its precision or of
/// its scaling, a way to host memory.
void add_hardware_faults(const Plan& plan, const ClusterSpec& cluster,
                         std::vector<PlanFault>& faults);

}  // namespace rehearse
