#pragma once
#include <cstdint>

#include "kernels/ops/cpu/thread_team.h"

namespace rehearse {

/// out(m,n) = op(a)·op(b), row-major, added to out where `accumulate`.
template <typename Work>
struct BlasProduct {
  const Work* a = nullptr;
  const Work* b = nullptr;
  Work* out = nullptr;
  std::int64_t a_leading = 0, b_leading = 0, out_leading = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  std::int64_t m = 0, n = 0, k = 0;
};

/// Through OpenBLAS where it was found, with as many threads as the team has; else through loops
/// of our own that sum in double.
void multiply(const BlasProduct<float>& product, ThreadTeam& team);
void multiply(const BlasProduct<double>& product, ThreadTeam& team);

}  // namespace rehearse
