#pragma once
#include "plan/ids.h"

namespace rehearse {

/// Relative standard deviation of the time that GPUs of one kind take for the same work. Sinha et
/// al. 2022, "Not All GPUs Are Created Equal" (SC22, arXiv 2208.11035), found 8 % of variation on
/// average between GPUs of one cluster, outliers apart, on five clusters and with loads of several
/// kinds. Read as the range between the whiskers of a box plot, which of a normal distribution
/// spans 5.4 standard deviations, that is 1.5 %.
inline constexpr double kOrdinaryDeviation = 0.015;

/// Ordinary differences between GPUs of one kind: each takes e^(deviation · z) times the usual
/// time for its computations, z standard normal, drawn by seed and GPU. The same GPU is slow under
/// every plan. Host and network are not spread.
struct Spread {
  double deviation = kOrdinaryDeviation;  ///< 0: all are alike
  int seed = 1;
  bool operator==(const Spread&) const = default;
};

/// Time that a GPU takes for its computations, relative to the usual one of its kind.
double slowness(const Spread& spread, GpuId gpu);

}  // namespace rehearse
