#include "plan/automatic_schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
/// Times nearer than this share of an action are the same time.
constexpr double kSameShare = 1e-9;

/// The two open choices of the heuristic.
struct Habits {
  bool early_forward = false;  ///< one more forward although the first backward then waits
  bool fill_any_gap = false;   ///< weight gradients in every gap, not only in the longest
};

struct Stage {
  int forwards = 0, backwards = 0, weights = 0;
  double free_s = 0;  ///< end of its last action
  double idle_s = 0;  ///< since its first action
  bool after_forward = false;
  std::vector<double> forward_end_s, backward_end_s;
  std::vector<Action> actions;
};

struct Choice {
  double start_s = 0;
  ActionKind kind = ActionKind::Forward;
};

class Scheduler {
 public:
  Scheduler(const AutomaticTimes& times, int stages, int micro_batches, double limit, Habits habits)
      : times_(times),
        micro_batches_(micro_batches),
        limit_(limit),
        habits_(habits),
        same_s_(kSameShare * (times.forward_s + times.input_gradient_s + times.weight_gradient_s)),
        stages_(static_cast<std::size_t>(stages)) {}

  /// Always the action that can start first, so that nothing is decided before it is known.
  void run() {
    for (;;) {
      std::optional<Choice> first;
      std::size_t at = 0;
      for (std::size_t s = 0; s < stages_.size(); ++s) {
        const std::optional<Choice> choice = choose(s);
        if (!choice || (first && choice->start_s >= first->start_s - same_s_)) continue;
        first = choice;
        at = s;
      }
      if (!first) return;
      perform(stages_[at], *first);
    }
  }

  /// The most that a stage idles between its first action and its last.
  double longest_idle_s() const { return longest_idle_s_; }
  std::vector<std::vector<Action>> take() {
    std::vector<std::vector<Action>> all;
    for (Stage& stage : stages_) all.push_back(std::move(stage.actions));
    return all;
  }

 private:
  bool has_room(const Stage& stage) const {
    const double held = (stage.forwards - stage.backwards) +
                        times_.kept_for_weights * (stage.backwards - stage.weights);
    return held + 1 <= limit_ + kSameShare;
  }

  /// When the next forward's input is there; kNever while that is unknown.
  double forward_input_s(std::size_t s) const {
    const auto next = static_cast<std::size_t>(stages_[s].forwards);
    if (s == 0) return 0;
    const std::vector<double>& ends = stages_[s - 1].forward_end_s;
    return next < ends.size() ? ends[next] + times_.hop_s : kNever;
  }
  double backward_input_s(std::size_t s) const {
    const Stage& stage = stages_[s];
    if (stage.backwards == stage.forwards) return kNever;
    const auto next = static_cast<std::size_t>(stage.backwards);
    if (s + 1 == stages_.size()) return stage.forward_end_s[next];
    const std::vector<double>& ends = stages_[s + 1].backward_end_s;
    return next < ends.size() ? ends[next] + times_.hop_s : kNever;
  }

  std::optional<Choice> choose(std::size_t s) const {
    const Stage& stage = stages_[s];
    if (stage.weights == micro_batches_) return std::nullopt;
    if (stage.backwards == micro_batches_) return Choice{stage.free_s, ActionKind::WeightGradient};
    const bool wants_room = stage.forwards < micro_batches_ && !has_room(stage);
    double forward_s = kNever;
    if (stage.forwards < micro_batches_ && !wants_room)
      forward_s = std::max(stage.free_s, forward_input_s(s));
    const double backward_s = std::max(stage.free_s, backward_input_s(s));
    if (stage.backwards == 0) return choose_warming_up(stage, forward_s, backward_s);
    return choose_in_turn(stage, forward_s, backward_s, wants_room);
  }

  std::optional<Choice> choose_warming_up(const Stage& stage, double forward_s,
                                          double backward_s) const {
    const double needed_s = habits_.early_forward ? 0 : times_.forward_s;
    const bool in_time = stage.forwards == 0 || forward_s + needed_s <= backward_s + same_s_;
    if (forward_s < kNever && in_time) return Choice{forward_s, ActionKind::Forward};
    if (backward_s < kNever) return Choice{backward_s, ActionKind::InputGradient};
    return std::nullopt;
  }

  std::optional<Choice> choose_in_turn(const Stage& stage, double forward_s, double backward_s,
                                       bool wants_room) const {
    const bool has_weights = stage.weights < stage.backwards;
    const bool forwards_turn = !stage.after_forward && stage.forwards < micro_batches_;
    if (forwards_turn && wants_room && has_weights)
      return Choice{stage.free_s, ActionKind::WeightGradient};
    const bool forward_next = forwards_turn && forward_s < kNever && forward_s <= backward_s;
    const double start_s = forward_next ? forward_s : backward_s;
    const double gap_s = start_s - stage.free_s;
    if (has_weights && fills(stage, gap_s)) return Choice{stage.free_s, ActionKind::WeightGradient};
    if (start_s == kNever) return std::nullopt;
    return Choice{start_s, forward_next ? ActionKind::Forward : ActionKind::InputGradient};
  }

  bool fills(const Stage& stage, double gap_s) const {
    if (gap_s >= times_.weight_gradient_s - same_s_) return true;
    if (gap_s <= same_s_) return false;
    return habits_.fill_any_gap || stage.idle_s + gap_s > longest_idle_s_;
  }

  void perform(Stage& stage, const Choice& choice) {
    if (!stage.actions.empty()) stage.idle_s += choice.start_s - stage.free_s;
    longest_idle_s_ = std::max(longest_idle_s_, stage.idle_s);
    Action action{choice.kind, 0, 0};
    if (choice.kind == ActionKind::Forward) {
      action.micro_batch = stage.forwards++;
      stage.free_s = choice.start_s + times_.forward_s;
      stage.forward_end_s.push_back(stage.free_s);
    } else if (choice.kind == ActionKind::InputGradient) {
      action.micro_batch = stage.backwards++;
      stage.free_s = choice.start_s + times_.input_gradient_s;
      stage.backward_end_s.push_back(stage.free_s);
    } else {
      action.micro_batch = stage.weights++;
      stage.free_s = choice.start_s + times_.weight_gradient_s;
    }
    if (choice.kind != ActionKind::WeightGradient)
      stage.after_forward = choice.kind == ActionKind::Forward;
    stage.actions.push_back(action);
  }

  const AutomaticTimes& times_;
  int micro_batches_;
  double limit_;
  Habits habits_;
  double same_s_, longest_idle_s_ = 0;
  std::vector<Stage> stages_;
};

}  // namespace

Schedule automatic_schedule(const AutomaticTimes& times, int stages, int micro_batches,
                            double memory_limit) {
  ensure(stages >= 1 && micro_batches >= 1 && memory_limit >= 1,
         "an automatic schedule has stages, micro-batches and room for one of them");
  Schedule best{.stages = stages, .chunks = 1, .micro_batches = micro_batches, .actions = {}};
  double best_idle_s = kNever;
  for (const bool early_forward : {false, true})
    for (const bool fill_any_gap : {false, true}) {
      Scheduler scheduler(times, stages, micro_batches, memory_limit,
                          {early_forward, fill_any_gap});
      scheduler.run();
      const double idle_s = scheduler.longest_idle_s();
      std::vector<std::vector<Action>> actions = scheduler.take();
      if (idle_s >= best_idle_s) continue;
      best_idle_s = idle_s;
      best.actions = std::move(actions);
    }
  return best;
}

}  // namespace rehearse
