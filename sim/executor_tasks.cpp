// What tasks do between their start and their end: computation under a host and beside
// communication, and transfers.
#include <algorithm>
#include <utility>

#include "plan/ensure.h"
#include "sim/executor.h"

namespace rehearse {

/// The host issues a device's launches in order. It begins a step's when the device has finished
/// the step before (the loss is read back) and `host_step_s` have passed, and does not run ahead of
/// a task that it waits before.
HostIssue Executor::issue(Instance instance, const Segment& segment) {
  if (!has_host_) return {};
  DeviceState& device = devices_[graph_.tasks[instance.task].device];
  if (device.step != instance.step)
    device.host_clock_s =
        std::max(device.host_clock_s, device.last_finish_s) + options_.host_step_s;
  if (graph_.tasks[instance.task].host_waits)
    device.host_clock_s = std::max(device.host_clock_s, now_s_);
  const HostIssue host{device.host_clock_s, segment.launch_s};
  device.host_clock_s += segment.launch_count * segment.launch_s;
  if (reported(instance.step)) record_.host_begin_s[instance.task] = host.begin_s;
  return host;
}

void Executor::start_compute(Instance instance) {
  const Task& task = graph_.tasks[instance.task];
  const Segment& segment = graph_.segments[task.payload];
  DeviceState& device = devices_[task.device];
  ensure(device.task < 0, "a device computes one task at a time");
  const HostIssue host = issue(instance, segment);
  if (device.step != instance.step && reported(instance.step))
    record_.previous_finish_s[task.device] = device.last_finish_s;
  device.task = instance.task;
  device.step = instance.step;
  device.start_s = now_s_;
  device.host = host;
  device.followed = false;
  record_rate(task.device);
  if (options_.one_by_one || device.rate != 1) {
    follow(task.device, device.rate);
    predict(task.device);
    return;
  }
  const double speed = graph_.devices[task.device].speed;
  double end_s = now_s_ + segment.seconds;
  if (speed != 1 || task.load != 0 || (has_host_ && segment.launch_s == 0))
    end_s = SegmentRun(graph_, segment, works_[task.payload], speed, task.load, host, now_s_, 1)
                .end_s();
  else if (has_host_)
    end_s = std::max(end_s, host.begin_s + segment.host_path_s);
  queue_.push(end_s, {EventKind::ComputeEnd, task.device, ++device.generation});
}

/// Begins to look at the running task's items: most run at full rate from start to end, and
/// nothing need be known of them.
void Executor::follow(std::int32_t device, double start_rate) {
  DeviceState& state = devices_[device];
  const Task& task = graph_.tasks[state.task];
  runs_[device] =
      SegmentRun(graph_, graph_.segments[task.payload], works_[task.payload],
                 graph_.devices[device].speed, task.load, state.host, state.start_s, start_rate);
  state.followed = true;
}

void Executor::predict(std::int32_t device) {
  const SegmentRun& run = runs_[device];
  const double end_s = options_.one_by_one ? run.item_end_s() : run.end_s();
  queue_.push(std::max(now_s_, end_s),
              {EventKind::ComputeEnd, device, ++devices_[device].generation});
}

void Executor::start_comm(Instance instance) {
  const Task& task = graph_.tasks[instance.task];
  change_interference(task, +1);
  if (task.seconds > 0)
    queue_.push(now_s_ + task.seconds, {EventKind::CommPhase, instance.task, instance.step});
  else
    end_comm_phase(instance);
}

/// The latency of a Comm is over, or the whole of it where no flow follows.
void Executor::end_comm_phase(Instance instance) {
  const Task& task = graph_.tasks[instance.task];
  if (task.payload >= 0 && graph_.patterns[task.payload].flow_count > 0 && task.bytes > 0)
    pending_flows_.push_back(instance);
  else
    finish(instance);
}

void Executor::start_flows() {
  const std::vector<Instance> starting = std::exchange(pending_flows_, {});
  for (const Instance instance : starting) {
    const Task& task = graph_.tasks[instance.task];
    const Pattern& pattern = graph_.patterns[task.payload];
    std::int32_t transfer = static_cast<std::int32_t>(transfers_.size());
    if (free_transfers_.empty()) {
      transfers_.emplace_back();
    } else {
      transfer = free_transfers_.back();
      free_transfers_.pop_back();
    }
    std::int32_t flows = 0;
    for (std::int32_t i = 0; i < pattern.flow_count; ++i) {
      const PatternFlow& flow = graph_.flows[pattern.first_flow + i];
      const double bytes = task.bytes * flow.bytes_factor;
      if (network().start(flow, bytes, transfer)) ++flows;
      if (!reported(instance.step)) continue;
      for (std::int32_t h = flow.first_hop; h < flow.first_hop + flow.hop_count; ++h)
        record_.link_bytes[graph_.hops[h].link] += bytes * graph_.hops[h].weight;
    }
    transfers_[transfer] = {instance, flows};
    if (flows > 0) continue;
    free_transfers_.push_back(transfer);
    finish(instance);
  }
}

/// A Comm of the task's kind starts (+1) or ends (−1) on the devices of its group.
void Executor::change_interference(const Task& task, std::int32_t by) {
  const Interference& loss = options_.interference;
  const auto kind = static_cast<std::size_t>(task.comm);
  if (loss.compute_share[kind] == 0 || task.device < 0) return;
  const Group& group = graph_.groups[task.device];
  for (std::int32_t i = 0; i < group.device_count; ++i) {
    const std::int32_t index = graph_.group_devices[group.first_device + i];
    DeviceState& device = devices_[index];
    device.running[kind] += by;
    // Summed afresh in a fixed order: the rate depends on what runs, not on what ran before.
    double share = 0;
    for (std::size_t k = 0; k < kCommKindCount; ++k)
      share += device.running[k] * loss.compute_share[k];
    const double rate = 1 - std::min(loss.max_share, share);
    if (rate == device.rate) continue;
    const double start_rate = std::exchange(device.rate, rate);
    if (device.task < 0) continue;
    if (!device.followed) follow(index, start_rate);
    runs_[index].set_rate(now_s_, rate);
    record_rate(index);
    predict(index);
  }
}

/// Notes the rate at which a device computes, where it is not what was noted last.
void Executor::record_rate(std::int32_t device) {
  DeviceState& state = devices_[device];
  if (!reported(state.step) || state.rate == state.recorded_rate) return;
  state.recorded_rate = state.rate;
  record_.rate_changes.push_back({device, now_s_, state.rate});
}

}  // namespace rehearse
