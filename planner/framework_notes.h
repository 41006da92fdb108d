#pragma once
#include <string>
#include <vector>

#include "plan/plan.h"

namespace rehearse {

/// What a plan asks for that its framework does not do: it is simulated as physics allows, and each
/// sentence says what the program itself would answer and where. Empty for a generic plan, and for
/// one that the framework runs. REQUIRES: the plan was resolved.
std::vector<std::string> framework_notes(const Plan& plan);

}  // namespace rehearse
