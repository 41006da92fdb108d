#include "sim/update_rate.h"

#include <algorithm>
#include <limits>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Ends of a replica's steps, ascending.
std::vector<std::vector<double>> step_ends(const StepGraph& graph, const SimulationRecord& record) {
  std::int32_t replicas = 0;
  for (const Device& device : graph.devices) replicas = std::max(replicas, device.replica + 1);
  const std::size_t steps = record.step_finish_s.size() / graph.devices.size();
  std::vector<std::vector<double>> ends(static_cast<std::size_t>(replicas),
                                        std::vector<double>(steps, 0));
  for (std::size_t step = 0; step < steps; ++step)
    for (std::size_t d = 0; d < graph.devices.size(); ++d) {
      double& end = ends[static_cast<std::size_t>(graph.devices[d].replica)][step];
      end = std::max(end, record.step_finish_s[step * graph.devices.size() + d]);
    }
  return ends;
}

/// Steps done at a date, the one at work in part.
double steps_done(const std::vector<double>& ends, double at_s) {
  const auto next = std::upper_bound(ends.begin(), ends.end(), at_s);
  const auto done = static_cast<double>(next - ends.begin());
  if (next == ends.end()) return done;
  const double begin_s = next == ends.begin() ? 0 : *(next - 1);
  return done + (at_s - begin_s) / (*next - begin_s);
}

}  // namespace

UpdateRate update_rate(const StepGraph& graph, const SimulationRecord& record, int warm_up) {
  const auto ends = step_ends(graph, record);
  ensure(!ends.empty() && ends.front().size() >= static_cast<std::size_t>(warm_up) + 2,
         "a rate needs two steps");
  double begin_s = std::numeric_limits<double>::infinity(), end_s = begin_s;
  for (const std::vector<double>& replica : ends) {
    begin_s = std::min(begin_s, replica[static_cast<std::size_t>(warm_up)]);
    end_s = std::min(end_s, replica.back());
  }
  UpdateRate rate;
  for (const std::vector<double>& replica : ends) {
    const double steps = steps_done(replica, end_s) - steps_done(replica, begin_s);
    rate.replica_period_s.push_back((end_s - begin_s) / steps);
    rate.updates_per_s += steps / (end_s - begin_s);
  }
  // A replica of period T finds U·T − 1 updates by others at its next; it makes a share 1/(U·T) of
  // all updates.
  for (const double period_s : rate.replica_period_s)
    rate.mean_staleness += (rate.updates_per_s * period_s - 1) / (rate.updates_per_s * period_s);
  return rate;
}

void restate_for_rate(const StepGraph& graph, const UpdateRate& rate, StepMetrics& metrics) {
  const double replicas = static_cast<double>(rate.replica_period_s.size());
  metrics.step_time_s = replicas / rate.updates_per_s;
  for (std::size_t d = 0; d < graph.devices.size(); ++d) {
    DeviceMetrics& device = metrics.devices[d];
    double own_s = device.busy_s() + device.bubble_s + device.host_s;
    for (const double seconds : device.exposed_s) own_s += seconds;
    // At its own pace a device waits only where a bound on staleness holds it back.
    const double period_s =
        rate.replica_period_s[static_cast<std::size_t>(graph.devices[d].replica)];
    const double scale = metrics.step_time_s / std::max(period_s, own_s);
    const auto restate = [scale](double& seconds) { seconds *= scale; };
    for (double& seconds : device.work_s) restate(seconds);
    for (double& seconds : device.exposed_s) restate(seconds);
    for (double& seconds : device.hidden_s) restate(seconds);
    for (double& bytes : device.bytes) restate(bytes);
    restate(device.bubble_s);
    restate(device.host_s);
    restate(device.slowed_s);
    device.waiting_s = metrics.step_time_s - scale * own_s;
  }
}

}  // namespace rehearse
