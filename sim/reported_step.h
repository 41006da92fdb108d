#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sim/segment_run.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// A part of a task inside the step's window. It ran from `from_s` to `to_s`, and counts at these
/// dates + shift_s.
struct ReportedPiece {
  std::int32_t task = 0;
  double from_s = 0, to_s = 0;
  double shift_s = 0;  ///< 0, or one step for what ran before the step's begin
};

/// The reported step of a simulation in order: each device's compute tasks by time, and their
/// items one by one. Made once, O(tasks log tasks); holds references to graph and record.
///
/// The window is [begin_s, end_s]. Tasks of the step that ran before its begin, beside the end of
/// the step before, stand for those of the next step that would run beside its end: they count
/// one step later. So a step holds all of its work once, and its end is not idle where in a row
/// of steps it is not.
class ReportedStep {
 public:
  ReportedStep(const StepGraph& graph, const SimulationRecord& record);

  double begin_s() const { return record_.begin_s; }
  double end_s() const { return record_.end_s; }
  double length_s() const { return record_.end_s - record_.begin_s; }
  /// A date, moved into the step.
  double clip(double date_s) const { return std::clamp(date_s, record_.begin_s, record_.end_s); }

  /// The device's compute tasks in the order they ran.
  std::span<const std::int32_t> computes(std::int32_t device) const {
    return std::span(compute_).subspan(first_compute_[device],
                                       first_compute_[device + 1] - first_compute_[device]);
  }
  /// The device's computation inside the window, in order and without overlap. (Where steps are
  /// not alike yet, what counts later is cut off where the step's own work is not over.)
  std::vector<ReportedPiece> pieces(std::int32_t device) const;
  /// The one or two parts of a transfer inside the window, by date.
  std::vector<ReportedPiece> comm_pieces(std::int32_t task) const;
  /// The first compute task of a device that began inside the window, −1 for none.
  std::int32_t first_inside(std::int32_t device) const;

  /// Whether a compute task ran at full rate from its start to its end.
  bool undisturbed(std::int32_t task) const;

  /// Calls `visit(item, start_s, end_s)` for each item of a compute task with the dates at which
  /// it really ran: host, speed and rate changes as in the simulation. The last item ends with
  /// the task, and no item overlaps the one before.
  template <class Visit>
  void replay(std::int32_t task, Visit&& visit) const;

 private:
  using RateChange = SimulationRecord::RateChange;
  /// First change of the device after a date; the one before it is in force.
  const RateChange* change_after(std::int32_t device, double at_s) const;

  const StepGraph& graph_;
  const SimulationRecord& record_;
  std::vector<std::int32_t> compute_, first_compute_;
  std::vector<std::int32_t> first_change_;  // by device, into record_.rate_changes
};

template <class Visit>
void ReportedStep::replay(std::int32_t task_index, Visit&& visit) const {
  const Task& task = graph_.tasks[task_index];
  const Segment& segment = graph_.segments[task.payload];
  const double start_s = record_.start_s[task_index], finish_s = record_.finish_s[task_index];
  HostIssue host;
  if (!record_.host_begin_s.empty()) host = {record_.host_begin_s[task_index], segment.launch_s};
  const RateChange* change = change_after(task.device, start_s);
  const RateChange* const first = record_.rate_changes.data() + first_change_[task.device];
  const RateChange* const last = record_.rate_changes.data() + first_change_[task.device + 1];

  SegmentRun run(graph_, segment, {}, graph_.devices[task.device].speed, task.load, host, start_s,
                 change == first ? 1.0 : change[-1].rate);
  const auto item_done = [&](std::int32_t item, double item_start_s, double item_end_s) {
    const bool at_end = item + 1 == segment.item_count;
    visit(graph_.items[segment.first_item + item], std::min(item_start_s, finish_s),
          at_end ? finish_s : std::min(item_end_s, finish_s));
  };
  for (; change != last && change->at_s < finish_s; ++change) {
    run.advance(change->at_s, item_done);
    run.set_rate(change->at_s, change->rate);
  }
  run.advance(std::numeric_limits<double>::infinity(), item_done);
}

}  // namespace rehearse
