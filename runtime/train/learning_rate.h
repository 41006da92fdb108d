#pragma once
#include <cstdint>
#include <string>

namespace rehearse {

enum class RateKind : std::uint8_t {
  Constant,
  Linear,    ///< falls in a straight line to the least rate at the last step
  Cosine,    ///< along half a cosine to the least rate at the last step
  Adaptive,  ///< halves whenever the loss has stopped falling
};

/// How large a step of the optimizer is.
struct RateOptions {
  RateKind kind = RateKind::Cosine;
  double peak = 1e-3;
  double least_share = 0.1;         ///< of the peak
  std::int64_t warmup_steps = 0;    ///< the rate rises in a straight line to its peak
  std::int64_t total_steps = 1000;  ///< of the whole run
  std::int64_t patience = 20;       ///< Adaptive: steps without a better loss before it halves
};

/// The rate of each step. The adaptive one carries a state: whoever resumes gives it back.
class LearningRate {
 public:
  struct State {
    double factor = 1, best_loss = 0, mean_loss = 0;
    std::int64_t since_best = 0, observed = 0;
  };
  explicit LearningRate(RateOptions options) : options_(options) {}

  double at(std::int64_t step) const;  ///< steps from 0
  /// Adaptive: follows the mean of the loss over some ten steps; a mean that has not fallen by one
  /// part in a thousand below the best for `patience` steps halves the rate, down to its least.
  void observe(double loss);
  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  RateOptions options_;
  State state_;
};

/// Peak rate for a batch other than the one a rate was chosen for: with the square root of the
/// batch, which keeps Adam's noise per sample (Malladi et al. 2022, arXiv 2205.10287).
double scaled_rate(double rate, double reference_batch, double batch);

/// "constant", "linear", "cosine", "adaptive"; false for other words.
bool parse_rate_kind(const std::string& word, RateKind& kind);

}  // namespace rehearse
