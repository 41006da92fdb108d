#pragma once
#include <stdexcept>
#include <string>

#include "plan/plan_file.h"

namespace rehearse {

/// Bytes that all ranks of a run hold at least, together: weights, gradients and optimizer state,
/// and what one micro-batch leaves in each layer for its backward. Runs take more (a schedule keeps
/// several micro-batches, operators need space); what needs more than there is cannot run.
struct MemoryNeed {
  double state_bytes = 0, activation_bytes = 0;
  double bytes() const { return state_bytes + activation_bytes; }
};
MemoryNeed least_memory(const PlanFile& file);

/// A plan that does not fit where it is to run: exit 3.
struct DoesNotFit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Why so many of the plan's ranks cannot be on a machine that has so much memory left (0:
/// unknown); empty where they may.
std::string why_it_does_not_fit(const PlanFile& file, int ranks_here, double available_bytes);

}  // namespace rehearse
