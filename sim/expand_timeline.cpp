#include <algorithm>
#include <utility>

#include "sim/metrics.h"
#include "sim/reported_step.h"

namespace rehearse {
namespace {

class Expansion {
 public:
  Expansion(const StepGraph& graph, const SimulationRecord& record)
      : graph_(graph), record_(record), step_(graph, record) {}

  Timeline run();

 private:
  void collect_comms();
  void expand(std::int32_t device, Timeline& into);
  void add(TimelineEvent event, const ReportedPiece& piece, double start_s, double end_s);
  TimelineEvent event_of(const Task& task, std::int32_t device) const;

  const StepGraph& graph_;
  const SimulationRecord& record_;
  const ReportedStep step_;
  std::vector<std::vector<std::int32_t>> comms_;  // by device
  std::vector<TimelineEvent> events_;             // of the device at hand
};

Timeline Expansion::run() {
  Timeline timeline;
  timeline.step_time_s = step_.length_s();
  timeline.tags = graph_.labels;
  collect_comms();
  std::vector<std::int32_t> order(graph_.devices.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [this](std::int32_t a, std::int32_t b) {
    return graph_.devices[a].representative < graph_.devices[b].representative;
  });
  for (const std::int32_t device : order) {
    timeline.ranks.push_back(graph_.devices[device].representative.value);
    timeline.represented.push_back(graph_.devices[device].members);
    expand(device, timeline);
  }
  return timeline;
}

void Expansion::collect_comms() {
  comms_.resize(graph_.devices.size());
  for (std::size_t i = 0; i < graph_.tasks.size(); ++i) {
    const Task& task = graph_.tasks[i];
    if (task.kind != TaskKind::Comm || task.device < 0) continue;
    const Group& group = graph_.groups[task.device];
    for (std::int32_t j = 0; j < group.device_count; ++j)
      comms_[graph_.group_devices[group.first_device + j]].push_back(static_cast<std::int32_t>(i));
  }
}

TimelineEvent Expansion::event_of(const Task& task, std::int32_t device) const {
  TimelineEvent event;
  event.rank = graph_.devices[device].representative.value;
  event.stage = graph_.devices[device].stage;
  event.stream = task.stream;
  event.tag = task.label;
  event.chunk = task.chunk;
  event.micro_batch = task.micro_batch;
  return event;
}

/// The part of something that ran from `start_s` to `end_s` which belongs to a piece, in the
/// window's time. An event without duration belongs to the piece in which it begins.
void Expansion::add(TimelineEvent event, const ReportedPiece& piece, double start_s, double end_s) {
  if (start_s == end_s ? start_s < piece.from_s || start_s > piece.to_s
                       : start_s >= piece.to_s || end_s <= piece.from_s)
    return;
  const auto in_window = [&](double date_s) {
    return step_.clip(std::clamp(date_s, piece.from_s, piece.to_s) + piece.shift_s) -
           step_.begin_s();
  };
  event.start_s = in_window(start_s);
  event.end_s = in_window(end_s);
  if (end_s > piece.to_s) event.bytes = 0;  // shown with its end
  events_.push_back(event);
}

void Expansion::expand(std::int32_t device, Timeline& into) {
  events_.clear();
  for (const ReportedPiece& piece : step_.pieces(device)) {
    const Task& task = graph_.tasks[piece.task];
    TimelineEvent event = event_of(task, device);
    step_.replay(piece.task, [&](const SegmentItem& item, double start_s, double end_s) {
      const bool transfer = item.work == WorkKind::TensorComm;
      event.stream = transfer ? Stream::Tensor : task.stream;
      event.tag = item.label;
      event.layer = item.layer;
      event.bytes = transfer ? item.bytes : 0;
      add(event, piece, start_s, end_s);
      if (item.hides_s <= 0) return;
      event.stream = Stream::Tensor;
      event.tag = item.hidden_label;
      add(event, piece, start_s, std::min(end_s, start_s + item.hides_s));
    });
  }
  for (const std::int32_t index : comms_[device]) {
    const Task& task = graph_.tasks[index];
    TimelineEvent event = event_of(task, device);
    const std::int32_t first = graph_.groups[task.device].first_device;
    if (task.comm != CommKind::Pipeline || graph_.group_devices[first] == device)
      event.bytes = task.rank_bytes;
    for (const ReportedPiece& piece : step_.comm_pieces(index))
      add(event, piece, record_.start_s[index], record_.finish_s[index]);
  }
  std::stable_sort(events_.begin(), events_.end(),
                   [](const TimelineEvent& a, const TimelineEvent& b) {
                     if (a.stream != b.stream) return a.stream < b.stream;
                     if (a.start_s != b.start_s) return a.start_s < b.start_s;
                     return a.end_s < b.end_s;
                   });
  // A stage may receive while it sends; on its stream the later of the two begins where the
  // earlier ends, as it would on a real stream, and ends when it ended.
  for (std::size_t i = 1; i < events_.size(); ++i) {
    if (events_[i].stream != events_[i - 1].stream) continue;
    events_[i].start_s = std::max(events_[i].start_s, events_[i - 1].end_s);
    events_[i].end_s = std::max(events_[i].end_s, events_[i].start_s);
  }
  into.events.insert(into.events.end(), events_.begin(), events_.end());
}

}  // namespace

Timeline expand_timeline(const StepGraph& graph, const SimulationRecord& record) {
  return Expansion(graph, record).run();
}

}  // namespace rehearse
