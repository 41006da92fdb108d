#include "planner/factor_fit.h"

#include "plan/ensure.h"

namespace rehearse {

std::vector<double> fit_factors(const std::vector<FactorSample>& samples,
                                const std::vector<double>& prior, double pull) {
  const std::size_t factors = prior.size();
  ensure(pull > 0, "a pull keeps the equations solvable");
  // The equations row by row, the right side last.
  std::vector<double> matrix(factors * (factors + 1), 0.0);
  const auto at = [&](std::size_t row, std::size_t column) -> double& {
    return matrix[row * (factors + 1) + column];
  };
  for (std::size_t j = 0; j < factors; ++j) {
    at(j, j) = pull;
    at(j, factors) = pull * prior[j];
  }
  for (const FactorSample& sample : samples) {
    ensure(sample.parts.size() == factors, "a sample has a part for each factor");
    for (std::size_t j = 0; j < factors; ++j) {
      for (std::size_t k = 0; k < factors; ++k)
        at(j, k) += sample.weight * sample.parts[j] * sample.parts[k];
      at(j, factors) += sample.weight * sample.parts[j] * sample.total;
    }
  }
  for (std::size_t j = 0; j < factors; ++j)
    for (std::size_t k = 0; k < factors; ++k) {
      if (k == j) continue;
      const double times = at(k, j) / at(j, j);
      for (std::size_t c = j; c <= factors; ++c) at(k, c) -= times * at(j, c);
    }
  std::vector<double> solved(factors);
  for (std::size_t j = 0; j < factors; ++j) solved[j] = at(j, factors) / at(j, j);
  return solved;
}

}  // namespace rehearse
