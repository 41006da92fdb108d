#pragma once
#include <array>
#include <vector>

#include "plan/ids.h"
#include "plan/plan.h"

namespace rehearse {

/// A rank's coordinate on each axis.
struct Coordinates {
  int tensor = 0, context = 0, data = 0, pipeline = 0;
  bool operator==(const Coordinates&) const = default;
};

/// Ranks ↔ coordinates by the plan's rank order, and ranks → GPUs (rank r on GPU r: launchers
/// number ranks node by node).
class RankMap {
 public:
  explicit RankMap(const Plan& plan);
  int size() const { return size_; }
  Rank rank(const Coordinates& at) const;
  Coordinates coordinates(Rank rank) const;
  GpuId gpu(Rank rank) const { return GpuId{rank.value}; }
  /// Ranks that differ from `at` on one axis only, by that coordinate.
  std::vector<Rank> group(Axis axis, Coordinates at) const;

 private:
  std::array<int, kAxisCount> extent_{};  ///< by Axis
  std::array<int, kAxisCount> stride_{};  ///< by Axis
  int size_ = 1;
};

}  // namespace rehearse
