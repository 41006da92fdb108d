#pragma once
#include <optional>
#include <string>
#include <vector>

#include "kernels/layer.h"

namespace rehearse {

/// A collective on an idle node. `bytes`: the whole buffer, as LayerItem counts it.
struct CollectivePoint {
  double bytes = 0;
  double seconds = 0;
};

/// Measured times of one collective among some ranks of one node.
struct CollectiveCurve {
  CollectiveKind collective = CollectiveKind::AllReduce;
  int ranks = 2;
  std::string source;
  std::vector<CollectivePoint> points;  ///< in ascending order of bytes; at least two
};

/// A time as a part that does not grow with the message and one that does, near one size.
struct AffineTime {
  double start_s = 0;
  double per_byte_s = 0;
};

/// The curve of this collective among so many ranks, read at `bytes`: on the straight line between
/// the two neighbouring points; shorter messages take as long as the shortest measured, longer
/// ones go on along the last line. Nothing where no curve has this number of ranks: times do not
/// carry over from one number to another. REQUIRES: bytes > 0.
std::optional<AffineTime> measured_collective(const std::vector<CollectiveCurve>& curves,
                                              CollectiveKind kind, int ranks, double bytes);

}  // namespace rehearse
