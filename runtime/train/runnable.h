#pragma once
#include <string>
#include <vector>

#include "plan/plan_file.h"

namespace rehearse {

/// Why a plan that can be simulated cannot be trained for real, as sentences with the field's
/// name; empty if it can.
std::vector<std::string> why_not_runnable(const PlanFile& file);

}  // namespace rehearse
