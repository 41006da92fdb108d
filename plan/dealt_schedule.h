#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan_choices.h"
#include "plan/schedule.h"

namespace rehearse {

// Pieces of the model dealt out to stages otherwise than Megatron-LM's interleaving does, which
// goes round. Each stage gets as many, and works on them in model order.

/// Where each of stages · chunks pieces lies. Range: consecutive pieces on one stage. RoundRobin:
/// one after the other. Random: by lot, the same for the same numbers and seed.
std::vector<ChunkPlace> dealt_places(Deal deal, int stages, int chunks, std::uint64_t seed = 1);

/// An order of work for any places. LayerWise: micro-batches one after the other. GPipe: all
/// forwards of a stage first. OneFOneB: a backward goes before a forward, an earlier micro-batch
/// before a later one, and at most `stages` micro-batches are on their way, so that it cannot come
/// to a standstill; found by working through it with backwards twice as long as forwards.
/// REQUIRES: one of these kinds. O(actions · log).
Schedule dealt_schedule(ScheduleKind kind, std::vector<ChunkPlace> places, int stages,
                        int micro_batches);

/// Why a kind of schedule cannot work on dealt pieces, as a sentence; empty if it can.
std::string why_not_dealt(ScheduleKind kind);

}  // namespace rehearse
