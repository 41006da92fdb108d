#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "plan/timeline.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// Where the time of one device's step went. The parts add up to the step:
/// Σ work + Σ exposed + bubble + waiting + host = step_time_s.
struct DeviceMetrics {
  std::array<double, kWorkKindCount> work_s{};     ///< computing, by kind
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

/// How each kind of idle is told apart: before a compute task starts, the device waits from the
/// end of its last one until the task's last predecessor is done. If that predecessor is a
/// transfer, the part of the wait in which it ran is exposed communication of its kind, and the
/// part before is a bubble (pipeline transfers) or waiting (the others). At the end of the step
/// what is left counts as waiting, or as bubble where the device's stage has a successor to wait
/// for.
StepMetrics measure(const StepGraph& graph, const SimulationRecord& record);

/// The reported step as events, segments expanded to their operators.
Timeline expand_timeline(const StepGraph& graph, const SimulationRecord& record);

}  // namespace rehearse
