#pragma once
#include <optional>
#include <string>
#include <vector>

#include "plan/plan_file.h"

namespace rehearse {

/// Why a plan that can be simulated cannot be trained for real, as sentences with the field's
/// name; empty if it can.
std::vector<std::string> why_not_runnable(const PlanFile& file);

/// The plan in a file, or nothing: what is wrong with it, or why it is not runnable, is told on
/// stderr where this process `tells`. Throws std::runtime_error where the file cannot be read.
std::optional<PlanFile> read_runnable_plan(const std::string& path, bool tells);

}  // namespace rehearse
