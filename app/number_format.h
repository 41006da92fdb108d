#pragma once
#include <string>

namespace rehearse {

/// A unit chosen for a whole column, so that its numbers can be compared at a glance.
struct ColumnUnit {
  double factor = 1;  ///< SI value · factor = number shown
  const char* unit = "";
  int decimals = 0;
  std::string cell(double value) const;
};

/// Seconds as s, ms or µs; the largest of the column decides, and has four digits.
ColumnUnit time_unit(double largest_s);
/// Tokens per second as 1/s, k/s or M/s.
ColumnUnit token_rate_unit(double largest_per_s);
/// Bytes as GB (10⁹), MB or kB.
ColumnUnit bytes_unit(double largest_bytes);

/// "1 node", "128 nodes".
std::string counted(int count, const char* noun);
/// "45.1"; a share of 1 as 100.0.
std::string percent(double share);
/// "+38.2 %" of `value` over `base`; "=" where both are the same to 0.05 %.
std::string difference(double value, double base);

}  // namespace rehearse
