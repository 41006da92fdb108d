#pragma once
#include <string>
#include <vector>

#include "planner/measured_runs.h"

namespace rehearse {

/// Runs of a family that the file tells apart by nothing but their name.
struct Twins {
  int runs = 0;            ///< timed runs with a twin
  double least_error = 0;  ///< least mean error of the whole family that predictions can have
};
/// REQUIRES: all runs are of one family.
Twins twins_of(const std::vector<const MeasuredRun*>& family);

/// A family to which its framework's host times were fitted, predicted without that.
struct UnfittedHost {
  std::string family;
  double mean_abs_error = 0;
};
/// Predicts those families again with the host time that was judged before any run: 7.5 µs an
/// operator, of eager PyTorch's 5 to 10. What comes out is how much of their agreement is the
/// fit's.
std::vector<UnfittedHost> errors_with_judged_host_times(const std::vector<MeasuredRun>& runs,
                                                        int jobs);

}  // namespace rehearse
