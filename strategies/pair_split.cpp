#include "strategies/pair_split.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
/// Sums of the same times in another order are equal.
constexpr double kSameShare = 1e-12;

/// best[k][i][j]: the k outer pairs hold the layers before i and from j on; `combine(before, times
/// of both pieces)` is minimised.
template <class Combine>
class PairTable {
 public:
  PairTable(const PairSplit& problem, Combine combine)
      : problem_(problem), pairs_(problem.pieces / 2), width_(problem.layers + 1) {
    cells_.resize(static_cast<std::size_t>(pairs_ + 1) * static_cast<std::size_t>(width_) *
                  static_cast<std::size_t>(width_));
    at(0, 0, problem.layers).value = 0;
    for (int pair = 0; pair < pairs_; ++pair)
      for (int begin = 0; begin < width_; ++begin)
        for (int end = begin; end < width_; ++end)
          if (at(pair, begin, end).value < kNever) extend(pair, begin, end, combine);
  }

  /// The best that leaves nothing; kNever where nothing can.
  double best() { return at(pairs_, meeting(), meeting()).value; }

  std::vector<int> split() {
    std::vector<int> counts(static_cast<std::size_t>(problem_.pieces));
    int begin = meeting(), end = begin;
    for (int pair = pairs_; pair > 0; --pair) {
      const Cell& cell = at(pair, begin, end);
      counts[static_cast<std::size_t>(pair - 1)] = begin - cell.begin;
      counts[static_cast<std::size_t>(problem_.pieces - pair)] = cell.end - end;
      begin = cell.begin;
      end = cell.end;
    }
    return counts;
  }

 private:
  struct Cell {
    double value = kNever;
    int begin = -1, end = -1;  ///< of what was left before
  };

  Cell& at(int pair, int begin, int end) {
    return cells_[(static_cast<std::size_t>(pair) * static_cast<std::size_t>(width_) +
                   static_cast<std::size_t>(begin)) *
                      static_cast<std::size_t>(width_) +
                  static_cast<std::size_t>(end)];
  }

  /// Where the two innermost pieces meet in the best split.
  int meeting() {
    int best = 0;
    for (int layer = 1; layer < width_; ++layer)
      if (at(pairs_, layer, layer).value < at(pairs_, best, best).value) best = layer;
    return best;
  }

  void extend(int pair, int begin, int end, Combine& combine) {
    const int first = pair, second = problem_.pieces - 1 - pair;
    const double before = at(pair, begin, end).value;
    const int last_begin = std::min(end, begin + problem_.most(first));
    for (int to = begin + problem_.fewest(first); to <= last_begin; ++to) {
      const double first_s = problem_.seconds(first, begin, to);
      if (first_s > problem_.bound_s * (1 + kSameShare)) break;
      const int lowest = std::max(to, end - problem_.most(second));
      for (int from = end - problem_.fewest(second); from >= lowest; --from) {
        const double value = combine(before, first_s, problem_.seconds(second, from, end));
        if (value == kNever) break;  // more layers take longer still
        Cell& cell = at(pair + 1, to, from);
        if (value < cell.value) cell = {value, begin, end};
      }
    }
  }

  const PairSplit& problem_;
  int pairs_, width_;
  std::vector<Cell> cells_;
};

}  // namespace

std::vector<int> pair_split(const PairSplit& problem) {
  ensure(problem.pieces % 2 == 0 && problem.layers <= kMostPairedLayers,
         "pieces come in pairs, and there are few enough layers");
  const double known_s = problem.bound_s * (1 + kSameShare);
  PairTable slowest(problem, [known_s](double before, double first_s, double second_s) {
    const double pair_s = first_s + second_s;
    return pair_s > known_s ? kNever : std::max(before, pair_s);
  });
  if (slowest.best() == kNever) return {};
  const double bound_s = slowest.best() * (1 + kSameShare);
  PairTable even(problem, [bound_s](double before, double first_s, double second_s) {
    const bool is_slower = first_s + second_s > bound_s;
    return is_slower ? kNever : before + first_s * first_s + second_s * second_s;
  });
  return even.split();
}

}  // namespace rehearse
