#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "strategies/step_graph.h"

namespace rehearse {

/// How running communication and computation slow each other on one GPU.
struct Interference {
  /// Share of the compute rate lost while a communication of a kind runs on the device; the
  /// shares of several running ones add up, to at most `max_share`.
  std::array<double, kCommKindCount> compute_share{};
  double max_share = 0.5;
};

struct SimulationOptions {
  int steps = 2;            ///< consecutive steps; the last is reported
  bool one_by_one = false;  ///< every item its own event (to check the coalesced run)
  Interference interference{};
  double host_step_s = 0;  ///< host work at each step's begin, before its first launch
};

/// When everything happened. Times are seconds from the begin of the first step.
struct SimulationRecord {
  /// Of the reported step: from the date when the last task of the step before was done (0 where
  /// there was none) to the date when its own last task was. Its first tasks may have begun
  /// earlier, beside the end of the step before.
  double begin_s = 0, end_s = 0;
  /// Per task of the reported step; begin of a Comm is the begin of its latency phase.
  std::vector<double> start_s, finish_s;
  /// The predecessor that was done last, and so let the task start; −1 where it had none. For a
  /// predecessor in the step before: −2 − task.
  std::vector<std::int32_t> last_predecessor;
  /// Compute tasks: when the host began to issue it. Empty where launches cost nothing.
  std::vector<double> host_begin_s;
  /// The rate at which a device computed, where it was not the one before: noted when a task
  /// starts and whenever it changes while one runs. By device, then by time; 1 before the first.
  struct RateChange {
    std::int32_t device;
    double at_s;
    double rate;  ///< 1 = undisturbed
  };
  std::vector<RateChange> rate_changes;
  /// Of the step before the reported one, for gaps that reach back: finish of each device's last
  /// compute task.
  std::vector<double> previous_finish_s;
  /// Of every step, when each device finished its last compute task: [step · devices + device].
  std::vector<double> step_finish_s;
  std::vector<double> link_bytes;  ///< per SimLink, of one member, in the reported step
  std::int64_t event_count = 0;
};

/// Runs the graph on SimGrid. One simulation per process at a time; may be called again.
/// A lone flow takes exactly its task's seconds + bytes/bandwidth; concurrent flows share links
/// max-min fairly. Same graph and options, same record to the last bit.
///
/// A task without any predecessor, in its own step or the one before, starts when the step before
/// is over. The host issues each device's items in order, `launch_s` each; it begins a step's
/// `host_step_s` after the device has finished the step before. Collectives of folded groups
/// (WorkKind::TensorComm items) are neither scaled by a device's speed nor slowed by others.
SimulationRecord simulate(const StepGraph& graph, const SimulationOptions& options);

}  // namespace rehearse
