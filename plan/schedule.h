#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace rehearse {

enum class ScheduleKind : std::uint8_t {
  Gpipe,      ///< all forwards, then all backwards
  OneFOneB,   ///< one forward, one backward (PipeDream-flush); interleaved when chunks > 1
  LayerWise,  ///< one stage active at a time: a micro-batch goes through and back, then the next
  ZbH1,       ///< split backward, weight gradients late: the memory of 1F1B, a third of its bubble
  ZbH2,       ///< as ZbH1 with twice the micro-batches in flight: hardly a bubble
  ZbV,        ///< split backward, two chunks a stage on a way down and up again
  DualPipe,   ///< micro-batches enter at both ends; every stage holds two pieces of the model
};

/// Which piece of the model is chunk c of stage s, of p stages.
enum class Placement : std::uint8_t {
  Loop,      ///< c·p + s: each row of chunks starts at the first stage again
  Vee,       ///< even rows go down, odd rows come back: c·p + s, or c·p + (p − 1 − s)
  BothWays,  ///< two copies of the model: chunk 0 is piece s, chunk 1 piece p − 1 − s; the first
             ///< half of the micro-batches goes through chunks 0, the other through chunks 1
  Dealt,  ///< as Schedule::places lists them
};

enum class ActionKind : std::uint8_t {
  Forward,
  Backward,        ///< gradients of inputs and weights together
  InputGradient,   ///< first half of a split backward
  WeightGradient,  ///< second half, free of dependencies between stages
};

/// One unit of work of a stage. `chunk` counts the model chunks of that stage. A joined action is
/// interleaved with the one after it: both start when both can, and both results are there when
/// both are done.
struct Action {
  ActionKind kind = ActionKind::Forward;
  std::int32_t micro_batch = 0;
  std::int32_t chunk = 0;
  bool joined = false;
  bool operator==(const Action&) const = default;
};

/// A chunk of a stage.
struct ChunkPlace {
  int stage = 0, chunk = 0;
  bool operator==(const ChunkPlace&) const = default;
};

/// The order of work inside each stage: the simulation and the real run execute the same object.
struct Schedule {
  int stages = 1;
  int chunks = 1;
  int micro_batches = 1;
  std::vector<std::vector<Action>> actions;  ///< [stage], in execution order
  Placement placement = Placement::Loop;
  std::vector<ChunkPlace> places;  ///< Dealt: of each piece of the model
};

/// Pieces that the model is cut into: stages·chunks, or stages where both ways hold the same.
int piece_count(const Schedule& schedule);
int piece_of(const Schedule& schedule, int stage, int chunk);
/// Where a micro-batch finds a piece of the model.
ChunkPlace place_of(const Schedule& schedule, int piece, int micro_batch);
/// False where the micro-batch goes the other way and never comes to this chunk.
bool visits_chunk(const Schedule& schedule, int chunk, int micro_batch);
/// True where one stage holds the first and the last piece (embedding and head).
bool ends_meet(const Schedule& schedule);

Placement placement_of(ScheduleKind kind);
/// Chunks that a stage of this kind holds, for a plan's number of virtual stages.
int chunks_of(ScheduleKind kind, int virtual_stages);

/// The schedule of a kind; `chunks` is the plan's virtual_stages. OneFOneB with chunks > 1
/// interleaves as Megatron-LM does, with `group` micro-batches of one chunk in a row (default:
/// stages; source: Megatron-LM schedules.py, get_pp_rank_microbatches and get_schedule_table).
/// The zero-bubble kinds and DualPipe are described in plan/split_schedules.h.
/// REQUIRES: `why_not_schedulable` returned nothing for the same arguments.
Schedule make_schedule(ScheduleKind kind, int stages, int chunks, int micro_batches, int group = 0);

/// Why the kind cannot be made with these numbers, as a sentence; empty if it can. Only OneFOneB
/// takes any chunks > 1, by Megatron-LM's rule: stages ≤ group ≤ micro_batches, and a shorter last
/// group still has at least `stages` micro-batches (with the default group: micro_batches is a
/// multiple of stages). ZbV has 2 chunks. DualPipe, with 1, needs an even number of stages and an
/// even number of micro-batches, at least two a stage.
std::string why_not_schedulable(ScheduleKind kind, int stages, int chunks, int micro_batches,
                                int group = 0);

/// What is wrong with a schedule, as sentences: an action missing, double or out of range, or
/// an order in which stages would wait for each other for ever. Empty if it can run.
std::vector<std::string> schedule_faults(const Schedule& schedule);

/// The most micro-batch·chunk activations each stage holds at once: kept from the end of a
/// Forward to the end of its Backward (or WeightGradient where the backward is split).
std::vector<int> peak_in_flight(const Schedule& schedule);

}  // namespace rehearse
