#pragma once
#include <string>
#include <string_view>

#include "planner/evaluate.h"

namespace rehearse {

/// A PlanOutcome as bytes, to travel between processes of the same program; bit for bit the same
/// after the way back. Not a file format.
std::string pack_outcome(PlanOutcome outcome);
/// Throws std::runtime_error where the bytes end early or go on too long.
PlanOutcome unpack_outcome(std::string_view bytes);

}  // namespace rehearse
