#pragma once
// An independent clock for schedules: the max-plus evaluation that tests compare with.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "plan/schedule.h"
#include "tests/catch.h"

namespace rehearse {

/// Of one chunk; a hop is between different stages.
struct ActionTimes {
  double forward_s = 1, input_gradient_s = 1, weight_gradient_s = 1, hop_s = 0;
  double all() const { return forward_s + input_gradient_s + weight_gradient_s; }
  double of(ActionKind kind) const {
    switch (kind) {
      case ActionKind::Forward:
        return forward_s;
      case ActionKind::Backward:
        return input_gradient_s + weight_gradient_s;
      case ActionKind::InputGradient:
        return input_gradient_s;
      case ActionKind::WeightGradient:
        return weight_gradient_s;
    }
    return 0;
  }
};

class ScheduleClock {
 public:
  ScheduleClock(const Schedule& schedule, const ActionTimes& times)
      : schedule_(schedule),
        times_(times),
        forward_(cell(piece_count(schedule), 0), -1),
        backward_(forward_),
        begin_(static_cast<std::size_t>(schedule.stages), -1),
        end_(begin_.size(), 0),
        next_(begin_.size(), 0) {
    for (bool moved = true; moved;) {
      moved = false;
      for (int s = 0; s < schedule.stages; ++s)
        while (advance(s)) moved = true;
    }
    for (std::size_t s = 0; s < next_.size(); ++s) REQUIRE(next_[s] == schedule.actions[s].size());
  }

  double makespan_s() const { return *std::max_element(end_.begin(), end_.end()); }
  /// What the slowest stage takes from its first action to its last: the step where no stage
  /// waits for the others' ends.
  double longest_stage_s() const {
    double longest = 0;
    for (std::size_t s = 0; s < end_.size(); ++s) longest = std::max(longest, end_[s] - begin_[s]);
    return longest;
  }

 private:
  std::size_t cell(int piece, int micro_batch) const {
    return static_cast<std::size_t>(piece * schedule_.micro_batches + micro_batch);
  }

  /// When a joined block's member could start; below 0 while that is unknown.
  double input_s(int stage, const Action& action) const {
    const int piece = piece_of(schedule_, stage, action.chunk), i = action.micro_batch;
    if (action.kind == ActionKind::WeightGradient) return backward_[cell(piece, i)];
    const bool is_forward = action.kind == ActionKind::Forward;
    if (!is_forward && forward_[cell(piece, i)] < 0) return -1;
    const int from = is_forward ? piece - 1 : piece + 1;
    if (from < 0) return 0;
    if (from == piece_count(schedule_)) return forward_[cell(piece, i)];
    const double there_s = (is_forward ? forward_ : backward_)[cell(from, i)];
    if (there_s < 0) return -1;
    return there_s + (place_of(schedule_, from, i).stage == stage ? 0 : times_.hop_s);
  }

  bool advance(int stage) {
    const auto s = static_cast<std::size_t>(stage);
    const auto& actions = schedule_.actions[s];
    std::size_t end = next_[s];
    if (end == actions.size()) return false;
    double start_s = end_[s], work_s = 0;
    do {
      const double there_s = input_s(stage, actions[end]);
      if (there_s < 0) return false;
      start_s = std::max(start_s, there_s);
      work_s += times_.of(actions[end].kind);
    } while (actions[end++].joined && end < actions.size());
    if (begin_[s] < 0) begin_[s] = start_s;
    end_[s] = start_s + work_s;
    for (; next_[s] < end; ++next_[s]) {
      const Action& action = actions[next_[s]];
      const int piece = piece_of(schedule_, stage, action.chunk);
      if (action.kind == ActionKind::WeightGradient) continue;
      const bool is_forward = action.kind == ActionKind::Forward;
      (is_forward ? forward_ : backward_)[cell(piece, action.micro_batch)] = end_[s];
    }
    return true;
  }

  const Schedule& schedule_;
  ActionTimes times_;
  std::vector<double> forward_, backward_;  ///< ends by (piece, micro-batch); −1: not yet
  std::vector<double> begin_, end_;         ///< by stage
  std::vector<std::size_t> next_;
};

/// Measured by Qi et al. 2023 (arXiv 2401.10241) on 8 stages: times of table 10 in ms, bubble
/// rates of table 5, and kept_for_weights = M_W/M_B by table 1 for the models' sizes.
struct PublishedBubbles {
  int micro_batches;
  double forward_s, input_gradient_s, weight_gradient_s, hop_s;
  double one_f_one_b, zb_h1, zb_h2, zb_1p, zb_2p, kept_for_weights;
};

inline std::vector<PublishedBubbles> published_bubbles() {
  // Table 1: M_B = 34 + 5as/h and M_W = 32 units; 1.5B: a 24, h 2304; 6.2B: a 32, h 4096; s 1024.
  const double small = 32 / (34 + 5.0 * 24 * 1024 / 2304),
               large = 32 / (34 + 5.0 * 32 * 1024 / 4096);
  return {
      {24, 18.522, 18.086, 9.337, 0.601, 0.2431, 0.1585, 0.1083, 0.1585, 0.0433, small},
      {32, 18.513, 18.086, 9.331, 0.626, 0.1985, 0.1242, 0.0837, 0.1242, 0.0039, small},
      {64, 18.546, 18.097, 9.321, 0.762, 0.1240, 0.0674, 0.0444, 0.0674, 0.0026, small},
      {24, 29.718, 29.444, 19.927, 0.527, 0.2347, 0.1323, 0.0698, 0.1323, 0.0029, large},
      {32, 29.802, 29.428, 19.530, 0.577, 0.1898, 0.1045, 0.0559, 0.1045, 0.0022, large},
      {64, 29.935, 29.621, 19.388, 0.535, 0.1091, 0.0554, 0.0294, 0.0554, 0.0010, large},
  };
}

}  // namespace rehearse
