#pragma once
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/schedule.h"

namespace rehearse {

/// Why a plan has no schedule: the field at fault (pointer inside the plan), a sentence, a hint.
struct ScheduleFault {
  std::string pointer, message, hint;
};

/// Everything that is wrong with a plan's schedule for so many micro-batches: sizes that its kind
/// cannot do, or explicit actions that are not readable, missing, double, or wait for ever. Empty
/// if it can run.
std::vector<ScheduleFault> plan_schedule_faults(const Plan& plan, int micro_batches);

/// Where the pieces of the model lie, if the plan deals them otherwise than its schedule does;
/// else empty.
std::vector<ChunkPlace> plan_places(const Plan& plan);

/// The explicit actions of a plan, or the schedule of its kind. Explicit actions stand on the
/// pieces where the kind would have them. REQUIRES: no faults.
Schedule plan_schedule(const Plan& plan, int micro_batches);

}  // namespace rehearse
