#include "plan/split_schedules.h"

#include <algorithm>
#include <array>
#include <deque>

namespace rehearse {
namespace {

using Actions = std::vector<Action>;

/// Hands out the actions of a chunk in the order of their micro-batches.
class ChunkLine {
 public:
  ChunkLine(int chunk, int first_micro_batch, Actions& out)
      : chunk_(chunk), first_(first_micro_batch), out_(out) {}

  void forward() { out_.push_back({ActionKind::Forward, first_ + forwards_++, chunk_}); }
  void backward() { out_.push_back({ActionKind::Backward, first_ + backwards_++, chunk_}); }
  void input_gradient() {
    out_.push_back({ActionKind::InputGradient, first_ + backwards_++, chunk_});
  }
  void weight_gradient() {
    out_.push_back({ActionKind::WeightGradient, first_ + weights_++, chunk_});
  }
  int forwards() const { return forwards_; }
  int backwards() const { return backwards_; }
  int weights() const { return weights_; }

 private:
  int chunk_, first_;
  int forwards_ = 0, backwards_ = 0, weights_ = 0;
  Actions& out_;
};

/// `warm_up` forwards, then B and F in turn; W follows its B at a distance of `delay`
/// micro-batches, which keeps every stage at the same number in flight, and the rest comes last.
Actions delayed_weights(int warm_up, int delay, int micro_batches) {
  Actions actions;
  ChunkLine line(0, 0, actions);
  while (line.forwards() < std::min(warm_up, micro_batches)) line.forward();
  while (line.backwards() < micro_batches) {
    line.input_gradient();
    if (line.backwards() - line.weights() > delay) line.weight_gradient();
    if (line.forwards() < micro_batches) line.forward();
  }
  while (line.weights() < micro_batches) line.weight_gradient();
  return actions;
}

/// The two directions of a DualPipe stage as its own end sees them: near is the direction whose
/// micro-batches come from the closer end of the pipeline.
class DualStage {
 public:
  DualStage(int stage, int stages, int micro_batches)
      : from_end_(std::min(stage, stages - 1 - stage)), half_stages_(stages / 2) {
    const int half = micro_batches / 2;
    const bool mirrored = stage >= half_stages_;
    next_forward_ = next_backward_ = mirrored ? std::array{half, 0} : std::array{0, half};
    near_chunk_ = mirrored ? 1 : 0;
    steady_ = half - stages + from_end_ + 1;
  }

  Actions run() {
    const int to_middle = half_stages_ - from_end_ - 1;
    for (int i = 0; i < 2 * to_middle; ++i) forward(kNear);
    for (int i = 0; i <= from_end_; ++i) {
      forward(kNear);
      forward(kFar);
    }
    for (int i = 0; i < to_middle; ++i) {
      input_gradient(kFar);
      weight_gradient();
      forward(kFar);
    }
    for (int i = 0; i < steady_; ++i) {
      // On the two middle stages the first backward needs what the forward before it sends.
      pair(kNear, kFar, i > 0 || to_middle > 0);
      pair(kFar, kNear, true);
    }
    for (int i = 0; i < to_middle; ++i) {
      backward(kFar);
      pair(kFar, kNear, true);
    }
    drain();
    for (int i = 0; i < to_middle; ++i) {
      weight_gradient();
      input_gradient(kNear);
    }
    while (!waiting_.empty()) weight_gradient();
    return std::move(actions_);
  }

 private:
  static constexpr int kNear = 0, kFar = 1;

  /// The last backwards of both directions; their second half leaves the weights for later.
  void drain() {
    const int total = 2 * (from_end_ + 1);
    for (int i = 0; i < total; ++i) {
      const int way = i % 2 == 0 ? kFar : kNear;
      if (2 * i > total - 1)
        input_gradient(way);
      else
        backward(way);
    }
  }

  int chunk(int way) const { return way == kNear ? near_chunk_ : 1 - near_chunk_; }
  void forward(int way) { add(ActionKind::Forward, next_forward_, way); }
  void backward(int way) { add(ActionKind::Backward, next_backward_, way); }
  void input_gradient(int way) {
    add(ActionKind::InputGradient, next_backward_, way);
    waiting_.push_back(actions_.back());
  }
  void weight_gradient() {
    Action action = waiting_.front();
    waiting_.pop_front();
    action.kind = ActionKind::WeightGradient;
    actions_.push_back(action);
  }
  void pair(int forward_way, int backward_way, bool joined) {
    forward(forward_way);
    actions_.back().joined = joined;
    backward(backward_way);
  }
  void add(ActionKind kind, std::array<int, 2>& next, int way) {
    actions_.push_back({kind, next[static_cast<std::size_t>(way)]++, chunk(way)});
  }

  int from_end_, half_stages_, near_chunk_ = 0, steady_ = 0;
  std::array<int, 2> next_forward_{}, next_backward_{};
  std::deque<Action> waiting_;
  Actions actions_;
};

}  // namespace

std::vector<Action> zb_h1_actions(int stage, int stages, int micro_batches) {
  return delayed_weights(stages - stage, stage, micro_batches);
}

std::vector<Action> zb_h2_actions(int stage, int stages, int micro_batches) {
  return delayed_weights(2 * (stages - stage) - 1, 2 * stage, micro_batches);
}

std::vector<Action> zb_v_actions(int stage, int stages, int micro_batches) {
  // Laid out for as many micro-batches as fill the pipeline; those that are too many are left out.
  const int laid_out = std::max(2 * stages - 1, micro_batches);
  Actions actions;
  ChunkLine down(0, 0, actions), up(1, 0, actions);
  for (int i = 0; i < 2 * (stages - stage) - 1; ++i) down.forward();
  for (int i = 0; i < stage; ++i) {
    up.forward();
    down.forward();
  }
  for (int i = 0; i < stages - stage; ++i) {
    up.forward();
    up.input_gradient();
    up.weight_gradient();
  }
  while (up.forwards() < down.forwards() || down.forwards() < laid_out) {
    if (down.forwards() < laid_out) down.forward();
    down.input_gradient();
    down.weight_gradient();
    up.forward();
    up.input_gradient();
    up.weight_gradient();
  }
  for (int i = 0; i < stage; ++i) {
    down.input_gradient();
    up.input_gradient();
  }
  for (int i = 0; i < stages - stage; ++i) {
    down.input_gradient();
    down.weight_gradient();
  }
  while (up.weights() < up.backwards()) up.weight_gradient();
  while (down.weights() < down.backwards()) down.weight_gradient();
  std::erase_if(actions, [&](const Action& action) { return action.micro_batch >= micro_batches; });
  return actions;
}

std::vector<Action> dual_pipe_actions(int stage, int stages, int micro_batches) {
  return DualStage(stage, stages, micro_batches).run();
}

}  // namespace rehearse
