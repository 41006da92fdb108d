#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <random>

#include "planner/factor_fit.h"
#include "planner/validation.h"

namespace rehearse {
namespace {

/// What a fit may scale: computing on GPUs before Hopper, on Hopper, later; communication; host.
constexpr std::size_t kFactors = 5;
using Factors = std::array<double, kFactors>;

/// What would be believed without any run: sustained rates were judged 0.90 on Hopper and 0.75 on
/// Blackwell before runs were fitted to (kernels/gpu_generation.cpp has 0.83 and 0.69), so that
/// the time of computing there is drawn to these shares of the modelled one.
constexpr Factors kPrior{1, 0.83 / 0.90, 0.69 / 0.75, 1, 1};

/// A timed run: its parts in units of the measured time, so that they would add up to 1.
struct Sample {
  std::size_t run = 0;
  Factors parts{};
};

std::size_t factor_of(const std::string& part, int compute_capability) {
  if (part == "host") return 4;
  for (const char* name : {"tensor comm.", "gradient reduction", "parameter gathers",
                           "pipeline transfers", "scalars", "waiting"})
    if (part == name) return 3;
  // The bubble is other stages' computing.
  return compute_capability < 90 ? 0 : compute_capability < 100 ? 1 : 2;
}

std::vector<Sample> samples_of(const std::vector<MeasuredRun>& runs,
                               const std::vector<RunPrediction>& predictions) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    double error = 0;
    if (!framework_fault(runs[i]).empty() || !step_time_error(runs[i], predictions[i], error))
      continue;
    Sample sample{.run = i, .parts = {}};
    const int capability = runs[i].cluster.groups.front().node.gpu.compute_capability;
    for (const Contribution& part : predictions[i].contributions)
      sample.parts[factor_of(part.name, capability)] += part.seconds / runs[i].measured.step_time_s;
    samples.push_back(sample);
  }
  return samples;
}

/// Each family has the same weight in sum, as in the means.
Factors fit(const std::vector<Sample>& samples, const std::vector<MeasuredRun>& runs,
            const std::vector<bool>& seen) {
  constexpr double kPull = 0.05;  // of a factor, against the weight 1 of a family
  std::map<std::string, int> sizes;
  for (const Sample& sample : samples)
    if (seen[sample.run]) ++sizes[runs[sample.run].family];
  std::vector<FactorSample> used;
  for (const Sample& sample : samples)
    if (seen[sample.run])
      used.push_back({.parts = {sample.parts.begin(), sample.parts.end()},
                      .total = 1,
                      .weight = 1.0 / sizes[runs[sample.run].family]});
  const std::vector<double> fitted = fit_factors(used, {kPrior.begin(), kPrior.end()}, kPull);
  Factors factors{};
  std::copy(fitted.begin(), fitted.end(), factors.begin());
  return factors;
}

double predicted(const Sample& sample, const Factors& factors) {
  double sum = 0;
  for (std::size_t j = 0; j < kFactors; ++j) sum += factors[j] * sample.parts[j];
  return sum;
}

/// Errors by family; small ones pooled in the mean.
class FamilyMeans {
 public:
  void add(const std::string& family, double error) {
    auto& [sum, count] = families_[family];
    sum += std::abs(error);
    ++count;
  }
  double mean() const {
    double sum = 0, pool_sum = 0;
    int count = 0, pool_count = 0;
    for (const auto& [name, family] : families_) {
      if (family.second < kPooledRuns) {
        pool_sum += family.first;
        pool_count += family.second;
      } else {
        sum += family.first / family.second;
        ++count;
      }
    }
    if (pool_count > 0) sum += pool_sum / pool_count, ++count;
    return count > 0 ? sum / count : 0;
  }

 private:
  std::map<std::string, std::pair<double, int>> families_;
};

}  // namespace

CrossValidation cross_validate(const std::vector<MeasuredRun>& runs,
                               const std::vector<RunPrediction>& predictions) {
  const std::vector<Sample> samples = samples_of(runs, predictions);
  CrossValidation result;
  if (samples.empty()) return result;

  std::map<std::string, int> names;
  for (const Sample& sample : samples) ++names[runs[sample.run].family];
  FamilyMeans left_out;
  int inside = 0;
  std::vector<bool> seen(runs.size());
  for (const auto& [name, size] : names) {
    for (std::size_t i = 0; i < runs.size(); ++i) seen[i] = runs[i].family != name;
    const Factors factors = fit(samples, runs, seen);
    for (const Sample& sample : samples) {
      if (seen[sample.run]) continue;
      const double ratio = predicted(sample, factors);
      left_out.add(name, ratio - 1);
      const double factor = 1 + predictions[sample.run].relative_error;
      if (ratio <= factor && ratio >= 1 / factor) ++inside;
    }
  }
  result.leave_family_out = left_out.mean();
  result.inside_interval = double(inside) / static_cast<double>(samples.size());

  constexpr std::uint32_t kSeed = 20240611;  // any; fixed, so that the figure can be repeated
  std::mt19937 random(kSeed);
  for (std::size_t i = 0; i < seen.size(); ++i) seen[i] = (random() & 1u) != 0;
  const Factors factors = fit(samples, runs, seen);
  FamilyMeans half;
  for (const Sample& sample : samples)
    if (!seen[sample.run]) half.add(runs[sample.run].family, predicted(sample, factors) - 1);
  result.random_half = half.mean();
  return result;
}

}  // namespace rehearse
