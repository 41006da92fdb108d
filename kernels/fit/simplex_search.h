#pragma once
#include <functional>
#include <vector>

namespace rehearse {

/// Minimises a function of a few variables by the simplex method of Nelder and Mead (1965), with
/// their coefficients 1, 2, 1/2, 1/2. Needs no derivatives, which tile counts do not have.
/// Deterministic. Starts from `start` with steps of `step` along each axis and stops after
/// `evaluations`, or when the simplex's values agree to 1e-7 of each other.
std::vector<double> simplex_search(const std::function<double(const std::vector<double>&)>& value,
                                   const std::vector<double>& start,
                                   const std::vector<double>& step, int evaluations);

}  // namespace rehearse
