#pragma once
#include <cstddef>
#include <vector>

#include "kernels/residual_map.h"

namespace rehearse {

/// A measured correction of the physical model.
struct ResidualSample {
  ShapePoint at{};
  double value = 0;   ///< log(measured / modelled)
  double weight = 1;  ///< how much it matters
};

/// At most `most_knots` knots that reproduce the samples' corrections with the least mean
/// absolute error when interpolated: places where the error of the knots so far, averaged over
/// neighbouring samples, is largest are taken in turns, and values are fitted to all samples, so
/// that no knot repeats one measurement. Deterministic.
ResidualMap fit_residuals(const std::vector<ResidualSample>& samples, std::size_t most_knots);

}  // namespace rehearse
