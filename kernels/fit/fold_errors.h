#pragma once
#include <cmath>
#include <vector>

#include "kernels/fit/shape_fit.h"

namespace rehearse {

/// Weighted mean of |log(measured / model_s(op))|: what fits minimise.
template <class Model>
double mean_log_error(const std::vector<const FitSample*>& samples, const Model& model_s) {
  double sum = 0, weight = 0;
  for (const FitSample* sample : samples) {
    sum += sample->weight * std::abs(std::log(sample->seconds / model_s(sample->op)));
    weight += sample->weight;
  }
  return weight > 0 ? sum / weight : 0;
}

/// Errors of `whole` on all samples, and of fits made without each fold on that fold.
/// `fit_of(training)` makes a fit, `time_s(op, fit)` predicts.
template <class Fit, class FitOf, class Time>
FitErrors fold_errors(const std::vector<FitSample>& samples, const Fit& whole, bool cross_validate,
                      const FitOf& fit_of, const Time& time_s) {
  FitErrors errors;
  errors.samples = static_cast<std::int64_t>(samples.size());
  const auto error = [&](const FitSample& sample, const Fit& fit) {
    return std::abs(time_s(sample.op, fit) / sample.seconds - 1);
  };
  for (const FitSample& sample : samples) {
    errors.fitted += error(sample, whole) / static_cast<double>(samples.size());
    errors.large_samples += sample.large;
  }
  if (!cross_validate || samples.size() < 2 * kFolds) return errors;
  for (int fold = 0; fold < kFolds; ++fold) {
    std::vector<FitSample> training;
    for (const FitSample& sample : samples)
      if (sample.fold != fold) training.push_back(sample);
    if (training.empty() || training.size() == samples.size()) continue;
    const Fit fit = fit_of(training);
    for (const FitSample& sample : samples) {
      if (sample.fold != fold) continue;
      const double missed = error(sample, fit);
      errors.held_out += missed / static_cast<double>(samples.size());
      if (sample.large) errors.held_out_large += missed / static_cast<double>(errors.large_samples);
    }
  }
  return errors;
}

}  // namespace rehearse
