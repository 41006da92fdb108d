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
  Interference interference;
  double host_step_s = 0;  ///< host work at each step's begin, before its first launch
};

/// When everything happened. Times are seconds from the begin of the first step.
struct SimulationRecord {
  double begin_s = 0, end_s = 0;  ///< of the reported step
  /// Per task of the reported step; begin of a Comm is the begin of its latency phase.
  std::vector<double> start_s, finish_s;
  /// The predecessor that was done last, and so let the task start; −1 where it had none. For a
  /// predecessor in the step before: −2 − task.
  std::vector<std::int32_t> last_predecessor;
  /// Compute tasks: when the host began to issue it. Empty where launches cost nothing.
  std::vector<double> host_begin_s;
  /// Changes of a device's compute rate while a task ran on it, by time within a device.
  struct RateChange {
    std::int32_t device;
    double at_s;
    double rate;  ///< from then on, 1 = undisturbed
  };
  std::vector<RateChange> rate_changes;
  /// Of the step before the reported one, for gaps that reach back: finish of each device's last
  /// compute task.
  std::vector<double> previous_finish_s;
  std::vector<double> link_bytes;  ///< per SimLink, of one member, in the reported step
  std::int64_t event_count = 0;
};

/// Runs the graph on SimGrid. One simulation per process at a time; may be called again.
/// A lone flow takes exactly its task's seconds + bytes/bandwidth; concurrent flows share links
/// max-min fairly. Same graph and options, same record to the last bit.
SimulationRecord simulate(const StepGraph& graph, const SimulationOptions& options);

}  // namespace rehearse
