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
  std::array<double, kWorkKindCount> seconds{}, per_load_s{};
  double transfer_bytes = 0;
  double hides_s = 0;
};

/// An interval in which one of a device's transfers ran after its last computation.
struct TailTransfer {
  double from_s, to_s;
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
  void add_work(const ReportedPiece& piece, DeviceMetrics& into) const;
  void add_comms();
  void add_comm(const ReportedPiece& piece,
                std::vector<std::array<double, kCommKindCount>>& covered);
  void add_tail(std::int32_t device);
  double add_own_transfers(std::int32_t device, double from_s, double to_s);
  void add_links();
  void compare_load();
  void share_out_waiting();

  const StepGraph& graph_;
  const SimulationRecord& record_;
  const ReportedStep step_;
  const IdleReasons idle_;
  std::vector<SegmentSums> segments_;
  std::vector<double> hides_s_;      // by device: tensor collectives beside operators
  std::vector<double> idle_from_s_;  // by device: end of its last computation
  std::vector<std::vector<TailTransfer>> tails_;
  std::int32_t last_task_ = -1;  // that ended the step
  StepMetrics metrics_;
};

StepMetrics Measurement::run() {
  metrics_.step_time_s = step_.length_s();
  metrics_.devices.resize(graph_.devices.size());
  const auto devices = static_cast<std::int32_t>(graph_.devices.size());
  sum_segments();
  hides_s_.assign(graph_.devices.size(), 0);
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
  for (std::int32_t i = 0; i < devices; ++i) {
    DeviceMetrics& device = metrics_.devices[i];
    device.exposed_s[tensor] += std::exchange(device.work_s[folded], 0.0);
    device.hidden_s[tensor] += hides_s_[i];
  }
  add_links();
  compare_load();
  share_out_waiting();
  return std::move(metrics_);
}

void Measurement::sum_segments() {
  segments_.resize(graph_.segments.size());
  for (std::size_t i = 0; i < graph_.segments.size(); ++i) {
    const Segment& segment = graph_.segments[i];
    for (std::int32_t j = 0; j < segment.item_count; ++j) {
      const SegmentItem& item = graph_.items[segment.first_item + j];
      segments_[i].seconds[static_cast<std::size_t>(item.work)] += item.seconds;
      segments_[i].per_load_s[static_cast<std::size_t>(item.work)] += item.per_load_s;
      if (item.work == WorkKind::TensorComm) segments_[i].transfer_bytes += item.bytes;
      segments_[i].hides_s += item.hides_s;
    }
  }
}

void Measurement::add_computes(std::int32_t device) {
  DeviceMetrics& into = metrics_.devices[device];
  double done_s = step_.begin_s();
  for (const ReportedPiece& piece : step_.pieces(device)) {
    const double from_s = piece.from_s + piece.shift_s;
    if (from_s > done_s)
      into.waiting_s += idle_.explain(device, done_s, from_s, record_.last_predecessor[piece.task],
                                      piece.shift_s, into) -
                        done_s;
    add_work(piece, into);
    done_s = std::max(done_s, piece.to_s + piece.shift_s);
  }
  for (const std::int32_t task : step_.computes(device)) {
    const SegmentSums& sums = segments_[graph_.tasks[task].payload];
    into.bytes[static_cast<std::size_t>(CommKind::Tensor)] += sums.transfer_bytes;
    hides_s_[device] += sums.hides_s;
  }
  idle_from_s_[device] = std::min(done_s, step_.end_s());
}

/// Computation by kind; what is left of the piece's time is the device waiting for its host.
void Measurement::add_work(const ReportedPiece& piece, DeviceMetrics& into) const {
  const std::int32_t device = graph_.tasks[piece.task].device;
  const SegmentSums& sums = segments_[graph_.tasks[piece.task].payload];
  const double speed = graph_.devices[device].speed, load = graph_.tasks[piece.task].load;
  double worked_s = 0;
  if (piece.from_s == record_.start_s[piece.task] && piece.to_s == record_.finish_s[piece.task] &&
      step_.undisturbed(piece.task)) {
    for (std::size_t kind = 0; kind < kWorkKindCount; ++kind) {
      const bool transfer = kind == static_cast<std::size_t>(WorkKind::TensorComm);
      const double alone_s = sums.seconds[kind] + load * sums.per_load_s[kind];
      const double seconds = transfer ? alone_s : alone_s / speed;
      into.work_s[kind] += seconds;
      worked_s += seconds;
    }
  } else {
    step_.replay(piece.task, [&](const SegmentItem& item, double item_start_s, double item_end_s) {
      const double seconds = std::clamp(item_end_s, piece.from_s, piece.to_s) -
                             std::clamp(item_start_s, piece.from_s, piece.to_s);
      into.work_s[static_cast<std::size_t>(item.work)] += seconds;
      worked_s += seconds;
      if (item.work == WorkKind::TensorComm || seconds == 0) return;
      const double whole_s = item_end_s - item_start_s;
      const double alone_s = (item.seconds + load * item.per_load_s) / speed;
      into.slowed_s += std::max(0.0, whole_s - alone_s) * (seconds / whole_s);
    });
  }
  if (!record_.host_begin_s.empty())
    into.host_s += std::max(0.0, piece.to_s - piece.from_s - worked_s);
}

/// Time and bytes of all transfers; `hidden_s` becomes the union of each kind's times.
void Measurement::add_comms() {
  std::vector<ReportedPiece> pieces;
  for (std::size_t i = 0; i < graph_.tasks.size(); ++i) {
    const Task& task = graph_.tasks[i];
    if (task.kind != TaskKind::Comm || task.device < 0) continue;
    for (const ReportedPiece& piece : step_.comm_pieces(static_cast<std::int32_t>(i)))
      pieces.push_back(piece);
    const Group& group = graph_.groups[task.device];
    // Of a transfer between stages only the sender, the group's first, hands something over.
    const std::int32_t givers = task.comm == CommKind::Pipeline ? 1 : group.device_count;
    for (std::int32_t j = 0; j < givers; ++j)
      metrics_.devices[graph_.group_devices[group.first_device + j]]
          .bytes[static_cast<std::size_t>(task.comm)] += task.rank_bytes;
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const ReportedPiece& a, const ReportedPiece& b) {
                     return a.from_s + a.shift_s < b.from_s + b.shift_s;
                   });
  std::vector<std::array<double, kCommKindCount>> covered(graph_.devices.size());
  for (auto& device : covered) device.fill(step_.begin_s());
  for (const ReportedPiece& piece : pieces) add_comm(piece, covered);
}

void Measurement::add_comm(const ReportedPiece& piece,
                           std::vector<std::array<double, kCommKindCount>>& covered) {
  const Task& task = graph_.tasks[piece.task];
  const Group& group = graph_.groups[task.device];
  const auto kind = static_cast<std::size_t>(task.comm);
  const double from_s = piece.from_s + piece.shift_s, to_s = piece.to_s + piece.shift_s;
  for (std::int32_t i = 0; i < group.device_count; ++i) {
    const std::int32_t device = graph_.group_devices[group.first_device + i];
    double& until_s = covered[device][kind];
    metrics_.devices[device].hidden_s[kind] += std::max(0.0, to_s - std::max(from_s, until_s));
    until_s = std::max(until_s, to_s);
    if (to_s > idle_from_s_[device]) tails_[device].push_back({from_s, to_s, task.comm});
  }
}

/// After its last computation a device waits for what its first of the next step waits for. Where
/// no next step is known, it waits for its own transfers and for what ended the step.
void Measurement::add_tail(std::int32_t device) {
  DeviceMetrics& into = metrics_.devices[device];
  const double from_s = idle_from_s_[device];
  double left_to_s = step_.end_s();
  const std::int32_t next = step_.first_inside(device);
  if (next >= 0 && left_to_s > from_s)
    left_to_s = idle_.explain(device, from_s, left_to_s, record_.last_predecessor[next],
                              step_.length_s(), into);
  left_to_s = add_own_transfers(device, from_s, left_to_s);
  if (left_to_s > from_s) left_to_s = idle_.explain(device, from_s, left_to_s, last_task_, 0, into);
  into.waiting_s += left_to_s - from_s;
}

/// The part of a wait at the step's end in which the device's own transfers run, and what lies
/// after each of them. Returns the date before which none runs.
double Measurement::add_own_transfers(std::int32_t device, double from_s, double to_s) {
  DeviceMetrics& into = metrics_.devices[device];
  std::vector<TailTransfer>& tail = tails_[device];
  std::stable_sort(tail.begin(), tail.end(),
                   [](const TailTransfer& a, const TailTransfer& b) { return a.to_s > b.to_s; });
  double left_to_s = to_s;
  for (const TailTransfer& transfer : tail) {
    const double begin_s = std::max(from_s, transfer.from_s);
    const double end_s = std::min(left_to_s, transfer.to_s);
    if (end_s <= begin_s) continue;
    if (end_s < left_to_s)
      into.waiting_s += idle_.explain(device, end_s, left_to_s, last_task_, 0, into) - end_s;
    into.exposed_s[static_cast<std::size_t>(transfer.kind)] += end_s - begin_s;
    left_to_s = begin_s;
  }
  return left_to_s;
}

void Measurement::add_links() {
  for (std::size_t i = 0; i < graph_.links.size(); ++i) {
    LinkMetrics link;
    link.link = static_cast<std::int32_t>(i);
    link.bytes = record_.link_bytes[i] + graph_.links[i].carried_bytes;
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
    sum_s += busy_s * graph_.devices[i].mean_busy * graph_.devices[i].members;
    members += graph_.devices[i].members;
  }
  if (sum_s > 0) metrics_.load_balance = most_s * members / sum_s;
}

/// A device that stands for several was simulated at the pace of the slowest; the others wait for
/// it. What is told is the mean of all.
void Measurement::share_out_waiting() {
  for (std::size_t i = 0; i < metrics_.devices.size(); ++i) {
    DeviceMetrics& device = metrics_.devices[i];
    const double share = graph_.devices[i].mean_busy;
    if (share >= 1) continue;
    device.waiting_s += (1 - share) * device.busy_s();
    for (double& seconds : device.work_s) seconds *= share;
    device.slowed_s *= share;
  }
}

}  // namespace

StepMetrics measure(const StepGraph& graph, const SimulationRecord& record) {
  return Measurement(graph, record).run();
}

}  // namespace rehearse
