#include "sim/segment_run.h"

namespace rehearse {

SegmentWork segment_work(const StepGraph& graph, const Segment& segment) {
  SegmentWork work;
  for (std::int32_t i = 0; i < segment.item_count; ++i) {
    const SegmentItem& item = graph.items[segment.first_item + i];
    (item.work == WorkKind::TensorComm ? work.transfer_s : work.compute_s) += item.seconds;
    work.per_load_s += item.per_load_s;
  }
  return work;
}

SegmentRun::SegmentRun(const StepGraph& graph, const Segment& segment, const SegmentWork& work,
                       double speed, double load, HostIssue host, double start_s, double rate)
    : items_(graph.items.data() + segment.first_item),
      count_(segment.item_count),
      speed_(speed),
      load_(load),
      rate_(rate),
      host_(host),
      at_s_(start_s),
      item_left_s_(segment.item_count > 0 ? seconds(0) : 0),
      left_(work) {
  left_.compute_s += load * work.per_load_s;
}

double SegmentRun::item_end_s() const {
  if (done()) return at_s_;
  const double begin_s = item_start_s_ >= 0 ? at_s_ : std::max(at_s_, host_.ready_s(items_[item_]));
  return begin_s + item_left_s_ / pace(item_);
}

double SegmentRun::end_s() const {
  if (done()) return at_s_;
  if (host_.ready_s(items_[count_ - 1]) <= at_s_)
    return at_s_ + std::max(0.0, left_.transfer_s + left_.compute_s / (speed_ * rate_));
  double end_s = item_end_s();
  for (std::int32_t i = item_ + 1; i < count_; ++i)
    end_s = std::max(end_s, host_.ready_s(items_[i])) + seconds(i) / pace(i);
  return end_s;
}

void SegmentRun::finish_item(double at_s) {
  left_of(item_) -= item_left_s_;
  at_s_ = at_s;
  ++item_;
  item_start_s_ = -1;
  if (item_ < count_) item_left_s_ = seconds(item_);
}

}  // namespace rehearse
