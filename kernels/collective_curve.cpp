#include "kernels/collective_curve.h"

#include <algorithm>

namespace rehearse {

std::optional<AffineTime> measured_collective(const std::vector<CollectiveCurve>& curves,
                                              CollectiveKind kind, int ranks, double bytes) {
  const auto curve = std::find_if(curves.begin(), curves.end(), [&](const CollectiveCurve& one) {
    return one.collective == kind && one.ranks == ranks && one.points.size() >= 2;
  });
  if (curve == curves.end()) return std::nullopt;
  const std::vector<CollectivePoint>& points = curve->points;
  const auto above = std::upper_bound(
      points.begin() + 1, points.end() - 1, bytes,
      [](double size, const CollectivePoint& point) { return size < point.bytes; });
  const CollectivePoint &low = *(above - 1), &high = *above;
  // Where a larger message was measured to be faster, as noise has it, nothing grows.
  const double slope = std::max(0.0, (high.seconds - low.seconds) / (high.bytes - low.bytes));
  const double seconds = bytes < low.bytes
                             ? low.seconds
                             : low.seconds + (high.seconds - low.seconds) * (bytes - low.bytes) /
                                                 (high.bytes - low.bytes);
  const double total_s = std::max(seconds, bytes > high.bytes ? high.seconds : 0.0);
  // A line that starts below zero, between sizes that two protocols serve, all grows.
  const double start_s = std::clamp(total_s - slope * bytes, 0.0, total_s);
  return AffineTime{start_s, (total_s - start_s) / bytes};
}

}  // namespace rehearse
