#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace rehearse {

enum class ScheduleKind : std::uint8_t {
  Gpipe,      ///< all forwards, then all backwards
  OneFOneB,   ///< one forward, one backward (PipeDream-flush); interleaved when chunks > 1
  LayerWise,  ///< one stage active at a time: a micro-batch goes through and back, then the next
};

enum class ActionKind : std::uint8_t {
  Forward,
  Backward,        ///< gradients of inputs and weights together
  InputGradient,   ///< first half of a split backward
  WeightGradient,  ///< second half, free of dependencies between stages
};

/// One unit of work of a stage. `chunk` counts the model chunks of that stage.
struct Action {
  ActionKind kind = ActionKind::Forward;
  std::int32_t micro_batch = 0;
  std::int32_t chunk = 0;
  bool operator==(const Action&) const = default;
};

/// The order of work inside each stage: the simulation and the real run execute the same object.
/// Chunk c of stage s is the (c·stages + s)-th piece of the model.
struct Schedule {
  int stages = 1;
  int chunks = 1;
  int micro_batches = 1;
  std::vector<std::vector<Action>> actions;  ///< [stage], in execution order
};

/// The schedule of a kind. OneFOneB with chunks > 1 interleaves as Megatron-LM does, with
/// `group` micro-batches of one chunk in a row (default: stages; source: Megatron-LM
/// schedules.py, get_pp_rank_microbatches and get_schedule_table).
/// REQUIRES: `why_not_schedulable` returned nothing for the same arguments.
Schedule make_schedule(ScheduleKind kind, int stages, int chunks, int micro_batches, int group = 0);

/// Why the kind cannot be made with these numbers, as a sentence; empty if it can. Only OneFOneB
/// takes chunks > 1, by Megatron-LM's rule: stages ≤ group ≤ micro_batches, and a shorter last
/// group still has at least `stages` micro-batches (with the default group: micro_batches is a
/// multiple of stages).
std::string why_not_schedulable(ScheduleKind kind, int stages, int chunks, int micro_batches,
                                int group = 0);

/// What is wrong with a schedule, as sentences: an action missing, double or out of range, or
/// an order in which stages would wait for each other for ever. Empty if it can run.
std::vector<std::string> schedule_faults(const Schedule& schedule);

/// The most micro-batch·chunk activations each stage holds at once: kept from the end of a
/// Forward to the end of its Backward (or WeightGradient where the backward is split).
std::vector<int> peak_in_flight(const Schedule& schedule);

}  // namespace rehearse
