#include "kernels/profiler/statistics.h"

#include <algorithm>
#include <cmath>

#include "plan/ensure.h"

namespace rehearse {
namespace {

double percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

}  // namespace

SampleStatistics statistics_of(std::vector<double> values) {
  ensure(!values.empty(), "there is something to take the median of");
  std::sort(values.begin(), values.end());
  return {.median = percentile(values, 0.5),
          .p10 = percentile(values, 0.1),
          .p90 = percentile(values, 0.9),
          .count = static_cast<int>(values.size())};
}

double mean_difference(std::vector<double> values) {
  ensure(values.size() >= 2, "a difference is between two");
  std::sort(values.begin(), values.end());
  // Of the pairs, the i-th smallest is the greater one i times and the lesser one n − 1 − i times.
  const auto last = static_cast<double>(values.size() - 1);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    sum += (2 * static_cast<double>(i) - last) * values[i];
  return 2 * sum / (static_cast<double>(values.size()) * last);
}

double quasi_random(std::int64_t index, int dimension) {
  ensure(dimension >= 0 && dimension < 3, "the sequence has three dimensions");
  constexpr double kRatio = 1.2207440846057594753616853491089;  // the real root of x⁴ = x + 1
  const double step = std::pow(1 / kRatio, dimension + 1);
  const double at = 0.5 + step * static_cast<double>(index + 1);
  return at - std::floor(at);
}

std::int64_t log_uniform(double share, std::int64_t least, std::int64_t most,
                         std::int64_t multiple) {
  const double low = std::log(static_cast<double>(least));
  const double high = std::log(static_cast<double>(most));
  const double value = std::exp(low + share * (high - low));
  const auto steps = static_cast<std::int64_t>(std::llround(value / static_cast<double>(multiple)));
  return std::clamp(std::max<std::int64_t>(steps, 1) * multiple, least, most);
}

}  // namespace rehearse
