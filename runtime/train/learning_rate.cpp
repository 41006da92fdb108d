#include "runtime/train/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rehearse {

double LearningRate::at(std::int64_t step) const {
  if (step < options_.warmup_steps)
    return options_.peak * static_cast<double>(step + 1) /
           static_cast<double>(options_.warmup_steps);
  const double least = options_.peak * options_.least_share;
  const double length =
      static_cast<double>(std::max<std::int64_t>(1, options_.total_steps - options_.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - options_.warmup_steps) / length);
  switch (options_.kind) {
    case RateKind::Constant:
      return options_.peak;
    case RateKind::Linear:
      return options_.peak + (least - options_.peak) * progress;
    case RateKind::Cosine:
      return least + (options_.peak - least) * (1 + std::cos(std::numbers::pi * progress)) / 2;
    case RateKind::Adaptive:
      return std::max(least, options_.peak * state_.factor);
  }
  return options_.peak;
}

void LearningRate::observe(double loss) {
  constexpr double kMemory = 0.9;        // of some ten steps
  constexpr double kImprovement = 1e-3;  // less is not counted as better
  state_.mean_loss =
      state_.observed == 0 ? loss : kMemory * state_.mean_loss + (1 - kMemory) * loss;
  const bool is_better =
      state_.observed == 0 || state_.mean_loss < state_.best_loss * (1 - kImprovement);
  ++state_.observed;
  if (is_better) {
    state_.best_loss = state_.mean_loss;
    state_.since_best = 0;
    return;
  }
  if (++state_.since_best < options_.patience) return;
  state_.factor /= 2;
  state_.since_best = 0;
}

double scaled_rate(double rate, double reference_batch, double batch) {
  return rate * std::sqrt(batch / reference_batch);
}

bool parse_rate_kind(const std::string& word, RateKind& kind) {
  if (word == "constant")
    kind = RateKind::Constant;
  else if (word == "linear")
    kind = RateKind::Linear;
  else if (word == "cosine")
    kind = RateKind::Cosine;
  else if (word == "adaptive")
    kind = RateKind::Adaptive;
  else
    return false;
  return true;
}

}  // namespace rehearse
