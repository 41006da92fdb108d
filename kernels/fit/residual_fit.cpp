#include "kernels/fit/residual_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rehearse {
namespace {

/// Knots that the first round spreads evenly, and how many each later round adds.
constexpr std::size_t kFirstKnots = 120, kRoundKnots = 60;
/// Knots of a round keep apart, in doublings squared.
constexpr double kApart = 0.8;
constexpr int kSweeps = 12, kLastSweeps = 60;
/// Errors count linearly beyond this: single bad measurements should not pull.
constexpr double kClip = 0.10;

class KnotFit {
 public:
  explicit KnotFit(const std::vector<ResidualSample>& samples)
      : samples_(samples), errors_(samples.size()), taken_(samples.size(), false) {}

  ResidualMap run(std::size_t most_knots) {
    spread(std::min(kFirstKnots, most_knots));
    fit_values(kSweeps);
    while (map_.knots().size() < std::min(most_knots, samples_.size())) {
      const std::size_t before = map_.knots().size();
      add_where_wrong(std::min(kRoundKnots, most_knots - before));
      if (map_.knots().size() == before) break;
      fit_values(kSweeps);
    }
    fit_values(kLastSweeps);
    return std::move(map_);
  }

 private:
  void add_knot(std::size_t sample) {
    taken_[sample] = true;
    map_.knots().push_back({.at = samples_[sample].at, .value = samples_[sample].value});
  }

  /// Farthest points first, where what matters more looks farther.
  void spread(std::size_t count) {
    std::vector<double> distance(samples_.size(), 1e9);
    for (std::size_t k = 0; k < count; ++k) {
      std::size_t farthest = 0;
      double best = -1;
      for (std::size_t i = 0; i < samples_.size(); ++i) {
        const double value = taken_[i] ? -1 : distance[i] * samples_[i].weight;
        if (value > best) {
          best = value;
          farthest = i;
        }
      }
      if (best <= 0) return;
      add_knot(farthest);
      for (std::size_t i = 0; i < samples_.size(); ++i)
        distance[i] =
            std::min(distance[i], squared_distance(samples_[i].at, samples_[farthest].at));
    }
  }

  /// Each knot moves by the mean error of the samples that use it, as they use it.
  void fit_values(int sweeps) {
    std::vector<std::vector<ResidualMap::Neighbour>> uses;
    uses.reserve(samples_.size());
    for (const ResidualSample& sample : samples_) uses.push_back(map_.neighbours(sample.at));
    auto& knots = map_.knots();
    std::vector<double> moved(knots.size()), weight(knots.size());
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      std::fill(moved.begin(), moved.end(), 0.0);
      std::fill(weight.begin(), weight.end(), 1e-9);
      for (std::size_t i = 0; i < samples_.size(); ++i) {
        const double error = error_of(i, uses[i]);
        for (const auto& use : uses[i]) {
          const double share = samples_[i].weight * use.weight * use.weight;
          moved[use.knot] += share / use.weight * std::clamp(error, -kClip, kClip) * use.weight;
          weight[use.knot] += share;
        }
      }
      for (std::size_t k = 0; k < knots.size(); ++k) knots[k].value += moved[k] / weight[k] * kStep;
    }
    for (std::size_t i = 0; i < samples_.size(); ++i) errors_[i] = error_of(i, uses[i]);
    uses_ = std::move(uses);
  }

  double error_of(std::size_t sample, const std::vector<ResidualMap::Neighbour>& uses) const {
    double value = 0;
    for (const auto& use : uses) value += use.weight * map_.knots()[use.knot].value;
    return samples_[sample].value - value;
  }

  /// What a new knot at a sample could mend: the error that samples near it share.
  std::vector<double> shared_errors() const {
    // Samples whose nearest knot is the same are neighbours.
    std::vector<std::vector<std::size_t>> cells(map_.knots().size());
    for (std::size_t i = 0; i < samples_.size(); ++i) cells[uses_[i].front().knot].push_back(i);
    std::vector<double> shared(samples_.size(), 0.0);
    for (const auto& cell : cells) {
      for (const std::size_t i : cell) {
        double sum = 0;
        for (const std::size_t j : cell) {
          const double near = squared_distance(samples_[i].at, samples_[j].at);
          if (near < 2.25)
            sum += samples_[j].weight * std::clamp(errors_[j], -0.3, 0.3) / (1 + 4 * near);
        }
        shared[i] = std::abs(sum);
      }
    }
    return shared;
  }

  void add_where_wrong(std::size_t count) {
    const std::vector<double> shared = shared_errors();
    std::vector<std::size_t> order(samples_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return shared[a] > shared[b]; });
    const std::size_t first_new = map_.knots().size();
    for (const std::size_t i : order) {
      if (map_.knots().size() == first_new + count) return;
      if (taken_[i] || shared[i] <= 0) continue;
      bool apart = true;
      for (std::size_t k = first_new; k < map_.knots().size() && apart; ++k)
        apart = squared_distance(map_.knots()[k].at, samples_[i].at) > kApart;
      for (std::size_t k = 0; k < first_new && apart; ++k)
        apart = squared_distance(map_.knots()[k].at, samples_[i].at) > 0.01;
      if (apart) add_knot(i);
    }
  }

  static constexpr double kStep = 0.7;
  const std::vector<ResidualSample>& samples_;
  std::vector<double> errors_;
  std::vector<bool> taken_;
  std::vector<std::vector<ResidualMap::Neighbour>> uses_;
  ResidualMap map_;
};

}  // namespace

ResidualMap fit_residuals(const std::vector<ResidualSample>& samples, std::size_t most_knots) {
  if (samples.empty() || most_knots == 0) return {};
  return KnotFit(samples).run(most_knots);
}

}  // namespace rehearse
