#include "sim/mixed_steps.h"

#include "plan/ensure.h"

namespace rehearse {

void mix_metrics(const StepMetrics& usual, int period, StepMetrics& metrics) {
  ensure(period >= 1 && usual.devices.size() == metrics.devices.size() &&
             usual.links.size() == metrics.links.size(),
         "steps that are mixed are of the same devices and links");
  const auto mix = [period](double& value, double other) {
    value = (value + (period - 1) * other) / period;
  };
  const double rare_s = metrics.step_time_s;
  mix(metrics.step_time_s, usual.step_time_s);
  mix(metrics.load_balance, usual.load_balance);
  for (std::size_t d = 0; d < metrics.devices.size(); ++d) {
    DeviceMetrics& to = metrics.devices[d];
    const DeviceMetrics& from = usual.devices[d];
    for (std::size_t i = 0; i < to.work_s.size(); ++i) mix(to.work_s[i], from.work_s[i]);
    for (std::size_t i = 0; i < to.exposed_s.size(); ++i) {
      mix(to.exposed_s[i], from.exposed_s[i]);
      mix(to.hidden_s[i], from.hidden_s[i]);
      mix(to.bytes[i], from.bytes[i]);
    }
    mix(to.bubble_s, from.bubble_s);
    mix(to.waiting_s, from.waiting_s);
    mix(to.host_s, from.host_s);
    mix(to.slowed_s, from.slowed_s);
  }
  for (std::size_t i = 0; i < metrics.links.size(); ++i) {
    LinkMetrics& to = metrics.links[i];
    const LinkMetrics& from = usual.links[i];
    // Bytes over what the link could carry in the time of each.
    double carried = to.utilisation * rare_s;
    mix(carried, from.utilisation * usual.step_time_s);
    to.utilisation = carried / metrics.step_time_s;
    mix(to.bytes, from.bytes);
  }
}

}  // namespace rehearse
