#pragma once
#include <cstdint>
#include <vector>

namespace rehearse {

/// Order statistics of repeated measurements.
struct SampleStatistics {
  double median = 0, p10 = 0, p90 = 0;
  int count = 0;

  /// How far the middle 80 % spread, relative to the median.
  double spread() const { return median > 0 ? (p90 - p10) / median : 0; }
};
/// Percentiles are interpolated linearly between neighbours. REQUIRES: at least one value.
SampleStatistics statistics_of(std::vector<double> values);

/// How far two of the values lie apart on average (Gini's mean difference): the later of two that
/// start together comes half of it after their mean. REQUIRES: at least two values.
double mean_difference(std::vector<double> values);

/// Points that fill the unit cube evenly, without the grid that hides a GPU's tiles: the additive
/// recurrence with the generalised golden ratio (Roberts 2018, "The unreasonable effectiveness of
/// quasirandom sequences"). `dimension` < 3.
double quasi_random(std::int64_t index, int dimension);

/// A whole number of [least, most], evenly spread in its logarithm, a multiple of `multiple`.
std::int64_t log_uniform(double share, std::int64_t least, std::int64_t most,
                         std::int64_t multiple);

}  // namespace rehearse
