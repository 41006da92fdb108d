#pragma once
#include <string>

#include "plan/plan.h"
#include "plan/timeline.h"

namespace rehearse {

/// A timeline as Chrome's trace format, which ui.perfetto.dev opens: one process a rank, in
/// order of stages, one thread a stream, one complete event ("X") an operator or transfer.
/// Consecutive operators of one pass of one micro-batch lie inside an event of their own.
/// Times are whole nanoseconds, rounded so that events that touch do not overlap.
/// `ranks_per_node` names the node of each rank.
std::string chrome_trace(const Timeline& timeline, const Plan& plan, int ranks_per_node);

}  // namespace rehearse
