#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "plan/timeline.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// Where the time of one device's step went; of one that stands for GPUs of different speed, the
/// mean of these. The parts add up to the step:
/// Σ work + Σ exposed + bubble + waiting + host = step_time_s.
struct DeviceMetrics {
  std::array<double, kWorkKindCount> work_s{};     ///< computing, by kind; TensorComm: 0
  std::array<double, kCommKindCount> exposed_s{};  ///< idle while a transfer it needed was running
  std::array<double, kCommKindCount> hidden_s{};   ///< transfers beside computation; not in the sum
  double bubble_s = 0;   ///< idle because another pipeline stage had not got that far
  double waiting_s = 0;  ///< idle because another replica or tensor rank was late
  double host_s = 0;     ///< idle because the host had not issued the next operator
  double slowed_s = 0;   ///< inside work_s: lost to running communication
  std::array<double, kCommKindCount> bytes{};  ///< payload a rank handed over, by kind
  double busy_s() const;                       ///< Σ work
};

struct LinkMetrics {
  std::int32_t link = 0;  ///< index into StepGraph::links
  double bytes = 0;
  double utilisation = 0;  ///< bytes / (bandwidth · step time)
};

struct StepMetrics {
  double step_time_s = 0;
  std::vector<DeviceMetrics> devices;  ///< parallel to StepGraph::devices
  double load_balance = 1;             ///< max over mean busy time of the GPUs (members counted)
  std::vector<LinkMetrics> links;
};

/// Where the time between the step's begin and end went, for every device.
///
/// How each kind of idle is told apart: before a compute task starts, the device waits from the
/// end of its last one until the task's last predecessor is done. Walking back from there along
/// the predecessors that were done last, exactly one task ran at every date of the wait. Where it
/// is a transfer that the device takes part in, the time is exposed communication of its kind;
/// where it ran on devices of other stages only, bubble; else waiting. At the end of the step a
/// device waits for what its first task of the next step waits for; of a single step no next one
/// is known, and it waits for its own transfers and for what ended the step.
///
/// Tasks that began before the step's begin stand for those of the next step that begin before
/// its end: they count one step later (sim/reported_step.h).
///
/// The collectives of a folded tensor group (WorkKind::TensorComm) are items of computation in
/// the graph, but communication here: their time is in exposed_s[Tensor] and not in work_s, so
/// that a folded and an unfolded step read the same.
StepMetrics measure(const StepGraph& graph, const SimulationRecord& record);

/// The reported step as events, segments expanded to their operators. What ran before the step's
/// begin is shown one step later, at its end; an event that crosses the begin is cut in two, and
/// its bytes stand at its end. Collectives of folded groups are on Stream::Tensor. A transfer
/// appears on the stream of each device that takes part; only ranks that hand something over show
/// bytes. Where a stage receives while it sends, the later event is shown from the end of the
/// earlier one.
Timeline expand_timeline(const StepGraph& graph, const SimulationRecord& record);

}  // namespace rehearse
