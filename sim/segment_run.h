#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "strategies/step_graph.h"

namespace rehearse {

/// When the host has issued the items of a segment: an item is there from
/// begin_s + launches · launch_s. Without a host everything is there from the beginning.
struct HostIssue {
  double begin_s = -std::numeric_limits<double>::infinity();
  double launch_s = 0;
  double ready_s(const SegmentItem& item) const { return begin_s + item.launches * launch_s; }
};

/// The seconds of a segment's items, apart by what a device's speed and rate change.
struct SegmentWork {
  double compute_s = 0;
  double transfer_s = 0;  ///< WorkKind::TensorComm
  double per_load_s = 0;  ///< more of compute_s for each unit of a task's load
};
SegmentWork segment_work(const StepGraph& graph, const Segment& segment);

/// A segment on its way through a device, item by item. Items of computation advance at
/// speed · rate, where the rate may change at any date; the collectives of a folded group
/// (WorkKind::TensorComm) advance with the time: neither a slow device nor lost SMs delay them.
class SegmentRun {
 public:
  SegmentRun() = default;
  SegmentRun(const StepGraph& graph, const Segment& segment, const SegmentWork& work, double speed,
             double load, HostIssue host, double start_s, double rate);

  bool done() const { return item_ == count_; }
  double rate() const { return rate_; }
  /// End of the current item / of the segment if the rate stays. O(1) once the host has issued
  /// everything, else O(items left).
  double item_end_s() const;
  double end_s() const;

  /// Advances to a date and goes on with another rate.
  void set_rate(double at_s, double rate) {
    advance(at_s, [](std::int32_t, double, double) {});
    rate_ = rate;
  }

  /// The current item is over at a date: its `item_end_s`.
  void finish_item(double at_s);

  /// Advances to a date; `visit(item, start_s, end_s)` is called for every item that ends by
  /// then. Without gaps inside: an item that was begun runs to its end.
  template <class Visit>
  void advance(double to_s, Visit&& visit);

 private:
  double pace(std::int32_t item) const {
    return items_[item].work == WorkKind::TensorComm ? 1.0 : speed_ * rate_;
  }

  double seconds(std::int32_t item) const {
    return items_[item].seconds + load_ * items_[item].per_load_s;
  }

  double& left_of(std::int32_t item) {
    return items_[item].work == WorkKind::TensorComm ? left_.transfer_s : left_.compute_s;
  }

  const SegmentItem* items_ = nullptr;
  std::int32_t count_ = 0;
  std::int32_t item_ = 0;
  double speed_ = 1, load_ = 0, rate_ = 1;
  HostIssue host_;
  double at_s_ = 0;           // everything below is as of this date
  double item_start_s_ = -1;  // when the current item began, −1 before
  double item_left_s_ = 0;    // seconds of the current item left, at pace 1
  SegmentWork left_;          // of the current and later items, at pace 1
};

template <class Visit>
void SegmentRun::advance(double to_s, Visit&& visit) {
  while (item_ < count_) {
    const double begin_s =
        item_start_s_ >= 0 ? at_s_ : std::max(at_s_, host_.ready_s(items_[item_]));
    if (begin_s > to_s) break;
    if (item_start_s_ < 0) item_start_s_ = begin_s;
    const double end_s = begin_s + item_left_s_ / pace(item_);
    if (end_s > to_s) {
      const double advanced_s = (to_s - begin_s) * pace(item_);
      item_left_s_ -= advanced_s;
      left_of(item_) -= advanced_s;
      break;
    }
    visit(item_, item_start_s_, end_s);
    finish_item(end_s);
  }
  at_s_ = std::max(at_s_, to_s);
}

}  // namespace rehearse
