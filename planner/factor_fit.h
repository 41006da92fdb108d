#pragma once
#include <vector>

namespace rehearse {

/// A measured time in units of itself: its predicted parts, which would add up to `total` = 1
/// were the prediction right, and its weight in the fit.
struct FactorSample {
  std::vector<double> parts;
  double total = 1;
  double weight = 1;
};

/// Factors f that minimise Σ weight·(Σ f·part − total)² + pull·Σ(f − prior)²: least squares of
/// relative errors, drawn towards what is believed without the samples, where those say little.
/// Normal equations by elimination; the pull keeps them positive definite. REQUIRES: pull > 0 and
/// equally many parts everywhere.
std::vector<double> fit_factors(const std::vector<FactorSample>& samples,
                                const std::vector<double>& prior, double pull);

}  // namespace rehearse
