#include "app/number_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rehearse {
namespace {

/// As many decimals as leave four digits to the largest number, at most three.
int decimals_for(double largest) {
  if (!(largest > 0)) return 1;
  const int digits_before_point = static_cast<int>(std::floor(std::log10(largest))) + 1;
  return std::clamp(4 - digits_before_point, 0, 3);
}

ColumnUnit unit(double factor, const char* name, double largest) {
  return {.factor = factor, .unit = name, .decimals = decimals_for(largest * factor)};
}

}  // namespace

std::string ColumnUnit::cell(double value) const {
  return fmt::format("{:.{}f}", value * factor, decimals);
}

ColumnUnit time_unit(double largest_s) {
  if (largest_s >= 1) return unit(1, "s", largest_s);
  if (largest_s >= 1e-3) return unit(1e3, "ms", largest_s);
  return unit(1e6, "µs", largest_s);
}

ColumnUnit token_rate_unit(double largest_per_s) {
  if (largest_per_s >= 1e6) return unit(1e-6, "M/s", largest_per_s);
  if (largest_per_s >= 1e4) return unit(1e-3, "k/s", largest_per_s);
  return unit(1, "1/s", largest_per_s);
}

ColumnUnit bytes_unit(double largest_bytes) {
  if (largest_bytes >= 1e9) return unit(1e-9, "GB", largest_bytes);
  if (largest_bytes >= 1e6) return unit(1e-6, "MB", largest_bytes);
  return unit(1e-3, "kB", largest_bytes);
}

std::string counted(int count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

std::string difference(double value, double base) {
  const double change = value / base - 1;
  if (std::abs(change) < 5e-4) return "=";
  return fmt::format("{:+.1f} %", 100 * change);
}

}  // namespace rehearse
