#pragma once
#include <vector>

#include "strategies/stage_program.h"

namespace rehearse {

/// Makes each tensor collective last longer by what its ranks wait on average for the latest of
/// them, where operators do not take the same time at every execution (ChunkItem::deviation): all
/// go on with the one that took longest since they last met.
///
/// Found by going through the items with `ranks` clocks, kDraws times: an operator of t seconds and
/// relative deviation d takes t·exp(s·z − s²/2) on each rank, with s² = ln(1 + d²) and z of the
/// standard normal distribution (a log-normal distribution of mean t and deviation d·t). Ranks that
/// compute beside a collective need not wait for who is late by less than that operator. Draws are
/// independent between ranks, operators and executions; what makes all ranks slow at once makes
/// nobody wait. `rows`: of a grid of tensor ranks, 1 where there is none.
///
/// Items are those of one action, after what hides collectives (tensor_overlap.h).
void add_tensor_lateness(std::vector<ChunkItem>& items, int ranks, int rows);

}  // namespace rehearse
