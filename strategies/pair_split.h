#pragma once
#include <functional>
#include <vector>

namespace rehearse {

/// Layers of any times to be cut into pieces of which the first and the last, the second and the
/// last but one, and so on inwards lie on one stage: ZB-V with two chunks, DualPipe.
struct PairSplit {
  int pieces = 2;  ///< even
  int layers = 0;
  std::function<double(int piece, int begin, int end)> seconds;  ///< grows with the layers
  std::function<int(int piece)> fewest, most;                    ///< layers of a piece
  double bound_s = 0;  ///< a slowest stage that is known to be possible
};

/// More layers than these take too long to try all pairs of borders.
inline constexpr int kMostPairedLayers = 160;

/// Layers of each piece such that the slowest pair is as fast as it can be, and of the splits that
/// are as good the one with the most even pieces (least sum of squares). Exact: dynamic programming
/// from the outside inwards over both borders of what is left, O(pieces · layers⁴ / 48) without the
/// bound. Empty where the limits leave no split. REQUIRES: layers ≤ kMostPairedLayers.
std::vector<int> pair_split(const PairSplit& problem);

}  // namespace rehearse
