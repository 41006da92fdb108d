#include "sim/metrics.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "sim/idle.h"
#include "sim/reported_step.h"

namespace rehearse {

double DeviceMetrics::busy_s() const { return std::accumulate(work_s.begin(), work_s.end(), 0.0); }

namespace {

/// Σ seconds and bytes of a segment's items, by kind of work.
struct SegmentSums {
  std::array<double, kWorkKindCount> seconds{};
  double transfer_bytes = 0;
};

/// An interval in which one of a device's transfers ran after its last computation.
struct TailTransfer {
  double start_s, finish_s;
  CommKind kind;
};

class Measurement {
 public:
  Measurement(const StepGraph& graph, const SimulationRecord& record)
      : graph_(graph), record_(record), step_(graph, record), idle_(graph, record) {}

  StepMetrics run();

 private:
  void sum_segments();
  void add_computes(std::int32_t device);
  void add_task(std::int32_t task, DeviceMetrics& into);
  void add_comms();
  void add_tail(std::int32_t device);
  void add_links();
  void compare_load();

  const StepGraph& graph_;
  const SimulationRecord& record_;
  const ReportedStep step_;
  const IdleReasons idle_;
  std::vector<SegmentSums> segments_;
  std::vector<double> idle_from_s_;  // by device: end of its last computation
  std::vector<std::vector<TailTransfer>> tails_;
  std::int32_t last_task_ = -1;  // that ended the step
  StepMetrics metrics_;
};

StepMetrics Measurement::run() {
  metrics_.step_time_s = step_.end_s() - step_.begin_s();
  metrics_.devices.resize(graph_.devices.size());
  const auto devices = static_cast<std::int32_t>(graph_.devices.size());
  sum_segments();
  idle_from_s_.assign(graph_.devices.size(), step_.begin_s());
  tails_.resize(graph_.devices.size());
  for (std::size_t task = graph_.tasks.size(); task-- > 0;)
    if (record_.finish_s[task] == step_.end_s()) last_task_ = static_cast<std::int32_t>(task);
  for (std::int32_t device = 0; device < devices; ++device) add_computes(device);
  add_comms();
  for (std::int32_t device = 0; device < devices; ++device) add_tail(device);
  // What ran beside computation is what ran in all, less what was waited for. The collectives of
  // folded groups are not in it: a device does nothing beside them.
  for (DeviceMetrics& device : metrics_.devices)
    for (std::size_t kind = 0; kind < kCommKindCount; ++kind)
      device.hidden_s[kind] = std::max(0.0, device.hidden_s[kind] - device.exposed_s[kind]);
  constexpr auto tensor = static_cast<std::size_t>(CommKind::Tensor);
  constexpr auto folded = static_cast<std::size_t>(WorkKind::TensorComm);
  for (DeviceMetrics& device : metrics_.devices)
    device.exposed_s[tensor] += std::exchange(device.work_s[folded], 0.0);
  add_links();
  compare_load();
  return std::move(metrics_);
}

void Measurement::sum_segments() {
  segments_.resize(graph_.segments.size());
  for (std::size_t i = 0; i < graph_.segments.size(); ++i) {
    const Segment& segment = graph_.segments[i];
    for (std::int32_t j = 0; j < segment.item_count; ++j) {
      const SegmentItem& item = graph_.items[segment.first_item + j];
      segments_[i].seconds[static_cast<std::size_t>(item.work)] += item.seconds;
      if (item.work == WorkKind::TensorComm) segments_[i].transfer_bytes += item.bytes;
    }
  }
}

void Measurement::add_computes(std::int32_t device) {
  DeviceMetrics& into = metrics_.devices[device];
  double done_s = step_.begin_s();
  for (const std::int32_t task : step_.computes(device)) {
    const double start_s = step_.clip(record_.start_s[task]);
    if (start_s > done_s)
      idle_.explain(device, done_s, start_s, record_.last_predecessor[task], into);
    add_task(task, into);
    done_s = std::max(done_s, step_.clip(record_.finish_s[task]));
  }
  idle_from_s_[device] = done_s;
}

/// Computation by kind; what is left of the task's time is the device waiting for its host.
void Measurement::add_task(std::int32_t task, DeviceMetrics& into) {
  const std::int32_t device = graph_.tasks[task].device;
  const SegmentSums& sums = segments_[graph_.tasks[task].payload];
  const double speed = graph_.devices[device].speed;
  const double start_s = step_.clip(record_.start_s[task]);
  const double finish_s = step_.clip(record_.finish_s[task]);
  into.bytes[static_cast<std::size_t>(CommKind::Tensor)] += sums.transfer_bytes;
  double worked_s = 0;
  if (start_s == record_.start_s[task] && finish_s == record_.finish_s[task] &&
      step_.undisturbed(task)) {
    for (std::size_t kind = 0; kind < kWorkKindCount; ++kind) {
      const bool transfer = kind == static_cast<std::size_t>(WorkKind::TensorComm);
      const double seconds = transfer ? sums.seconds[kind] : sums.seconds[kind] / speed;
      into.work_s[kind] += seconds;
      worked_s += seconds;
    }
  } else {
    step_.replay(task, [&](const SegmentItem& item, double item_start_s, double item_end_s) {
      const double seconds = step_.clip(item_end_s) - step_.clip(item_start_s);
      into.work_s[static_cast<std::size_t>(item.work)] += seconds;
      worked_s += seconds;
      if (item.work == WorkKind::TensorComm || seconds == 0) return;
      const double whole_s = item_end_s - item_start_s;
      into.slowed_s += std::max(0.0, whole_s - item.seconds / speed) * (seconds / whole_s);
    });
  }
  if (!record_.host_begin_s.empty()) into.host_s += std::max(0.0, finish_s - start_s - worked_s);
}

/// Time and bytes of all transfers; `hidden_s` becomes the union of each kind's times.
void Measurement::add_comms() {
  std::vector<std::int32_t> comms;
  for (std::size_t task = 0; task < graph_.tasks.size(); ++task)
    if (graph_.tasks[task].kind == TaskKind::Comm && graph_.tasks[task].device >= 0)
      comms.push_back(static_cast<std::int32_t>(task));
  std::stable_sort(comms.begin(), comms.end(), [this](std::int32_t a, std::int32_t b) {
    return record_.start_s[a] < record_.start_s[b];
  });
  std::vector<std::array<double, kCommKindCount>> covered(graph_.devices.size());
  for (auto& device : covered) device.fill(step_.begin_s());
  for (const std::int32_t index : comms) {
    const Task& task = graph_.tasks[index];
    const Group& group = graph_.groups[task.device];
    const auto kind = static_cast<std::size_t>(task.comm);
    const double start_s = step_.clip(record_.start_s[index]);
    const double finish_s = step_.clip(record_.finish_s[index]);
    for (std::int32_t i = 0; i < group.device_count; ++i) {
      const std::int32_t device = graph_.group_devices[group.first_device + i];
      DeviceMetrics& into = metrics_.devices[device];
      // Of a transfer between stages only the sender, the group's first, hands something over.
      if (i == 0 || task.comm != CommKind::Pipeline) into.bytes[kind] += task.rank_bytes;
      double& until_s = covered[device][kind];
      into.hidden_s[kind] += std::max(0.0, finish_s - std::max(start_s, until_s));
      until_s = std::max(until_s, finish_s);
      if (finish_s > idle_from_s_[device]) tails_[device].push_back({start_s, finish_s, task.comm});
    }
  }
}

/// After its last computation a device waits for the step's end: for its own transfers where
/// such run, else for whatever ended the step.
void Measurement::add_tail(std::int32_t device) {
  DeviceMetrics& into = metrics_.devices[device];
  const double from_s = idle_from_s_[device];
  std::vector<TailTransfer>& tail = tails_[device];
  std::stable_sort(tail.begin(), tail.end(), [](const TailTransfer& a, const TailTransfer& b) {
    return a.finish_s > b.finish_s;
  });
  double left_to_s = step_.end_s();
  for (const TailTransfer& transfer : tail) {
    if (left_to_s <= from_s) return;
    const double begin_s = std::max(from_s, transfer.start_s);
    const double end_s = std::min(left_to_s, transfer.finish_s);
    if (end_s <= begin_s) continue;
    if (end_s < left_to_s) idle_.explain(device, end_s, left_to_s, last_task_, into);
    into.exposed_s[static_cast<std::size_t>(transfer.kind)] += end_s - begin_s;
    left_to_s = begin_s;
  }
  if (left_to_s > from_s) idle_.explain(device, from_s, left_to_s, last_task_, into);
}

void Measurement::add_links() {
  for (std::size_t i = 0; i < graph_.links.size(); ++i) {
    LinkMetrics link;
    link.link = static_cast<std::int32_t>(i);
    link.bytes = record_.link_bytes[i];
    const double capacity_bytes = graph_.links[i].bandwidth_bytes_per_s * metrics_.step_time_s;
    if (capacity_bytes > 0) link.utilisation = link.bytes / capacity_bytes;
    metrics_.links.push_back(link);
  }
}

void Measurement::compare_load() {
  double most_s = 0, sum_s = 0, members = 0;
  for (std::size_t i = 0; i < metrics_.devices.size(); ++i) {
    const double busy_s = metrics_.devices[i].busy_s();
    most_s = std::max(most_s, busy_s);
    sum_s += busy_s * graph_.devices[i].members;
    members += graph_.devices[i].members;
  }
  if (sum_s > 0) metrics_.load_balance = most_s * members / sum_s;
}

}  // namespace

StepMetrics measure(const StepGraph& graph, const SimulationRecord& record) {
  return Measurement(graph, record).run();
}

}  // namespace rehearse
