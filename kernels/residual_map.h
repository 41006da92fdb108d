#pragma once
#include <array>
#include <cstddef>
#include <vector>

namespace rehearse {

/// A place in log2 shape space.
using ShapePoint = std::array<double, 4>;

/// A correction known at one place: log(measured / modelled).
struct ResidualKnot {
  ShapePoint at{};
  double value = 0;
};

/// Corrections interpolated between knots by inverse distance: the nearest few count with weight
/// 1/(d² + softening)², d in doublings of the shape. Nearest knots of equal distance are taken in
/// their order. A query costs one pass over the knots: some hundred nanoseconds for 600.
class ResidualMap {
 public:
  static constexpr std::size_t kNeighbours = 10;

  struct Neighbour {
    std::size_t knot = 0;
    double squared_distance = 0;
    double weight = 0;  ///< all of a query's sum to 1
  };
  struct Estimate {
    double value = 0;
    double distance = 0;  ///< to the nearest knot, in doublings; infinite without knots
  };

  ResidualMap() = default;
  explicit ResidualMap(std::vector<ResidualKnot> knots) : knots_(std::move(knots)) {}

  Estimate at(const ShapePoint& point) const;
  /// The knots that count at a point, nearest first; fewer than kNeighbours where there are fewer.
  std::vector<Neighbour> neighbours(const ShapePoint& point) const;

  const std::vector<ResidualKnot>& knots() const { return knots_; }
  std::vector<ResidualKnot>& knots() { return knots_; }

 private:
  std::size_t nearest(const ShapePoint& point, std::array<Neighbour, kNeighbours>& found) const;

  std::vector<ResidualKnot> knots_;
};

double squared_distance(const ShapePoint& a, const ShapePoint& b);

}  // namespace rehearse
