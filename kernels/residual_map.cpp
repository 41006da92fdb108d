#include "kernels/residual_map.h"

#include <cmath>
#include <limits>

namespace rehearse {
namespace {

/// Keeps the weight of a knot finite that is hit exactly, and lets noise of neighbouring
/// measurements average out: a quarter of a doubling, squared.
constexpr double kSoftening = 0.0625;

}  // namespace

double squared_distance(const ShapePoint& a, const ShapePoint& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

std::size_t ResidualMap::nearest(const ShapePoint& point,
                                 std::array<Neighbour, kNeighbours>& found) const {
  std::size_t count = 0;
  double farthest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < knots_.size(); ++i) {
    const double distance = squared_distance(knots_[i].at, point);
    if (count == kNeighbours && distance >= farthest) continue;
    std::size_t place = count < kNeighbours ? count++ : kNeighbours - 1;
    for (; place > 0 && found[place - 1].squared_distance > distance; --place)
      found[place] = found[place - 1];
    found[place] = {.knot = i, .squared_distance = distance, .weight = 0};
    farthest = found[count - 1].squared_distance;
  }
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double softened = found[i].squared_distance + kSoftening;
    total += found[i].weight = 1 / (softened * softened);
  }
  for (std::size_t i = 0; i < count; ++i) found[i].weight /= total;
  return count;
}

ResidualMap::Estimate ResidualMap::at(const ShapePoint& point) const {
  std::array<Neighbour, kNeighbours> found;
  const std::size_t count = nearest(point, found);
  if (count == 0) return {.value = 0, .distance = std::numeric_limits<double>::infinity()};
  Estimate estimate{.value = 0, .distance = std::sqrt(found[0].squared_distance)};
  for (std::size_t i = 0; i < count; ++i)
    estimate.value += found[i].weight * knots_[found[i].knot].value;
  return estimate;
}

std::vector<ResidualMap::Neighbour> ResidualMap::neighbours(const ShapePoint& point) const {
  std::array<Neighbour, kNeighbours> found;
  const std::size_t count = nearest(point, found);
  return {found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace rehearse
