#include "plan/rank_map.h"

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr std::array<Axis, kAxisCount> kAxes{Axis::Tensor, Axis::Context, Axis::Data,
                                             Axis::Pipeline};

int& coordinate(Coordinates& at, Axis axis) {
  switch (axis) {
    case Axis::Tensor:
      return at.tensor;
    case Axis::Context:
      return at.context;
    case Axis::Data:
      return at.data;
    case Axis::Pipeline:
      return at.pipeline;
  }
  ensure(false, "an axis has one of the named values");
  return at.tensor;
}

std::size_t index(Axis axis) { return static_cast<std::size_t>(axis); }

}  // namespace

RankMap::RankMap(const Plan& plan) {
  extent_[index(Axis::Tensor)] = plan.tp;
  extent_[index(Axis::Context)] = plan.cp;
  extent_[index(Axis::Data)] = plan.dp;
  extent_[index(Axis::Pipeline)] = plan.pp;
  for (const Axis axis : plan.rank_order) {
    ensure(stride_[index(axis)] == 0, "a rank order names each axis once");
    ensure(extent_[index(axis)] >= 1, "a resolved plan has at least one rank on each axis");
    stride_[index(axis)] = size_;
    size_ *= extent_[index(axis)];
  }
}

Rank RankMap::rank(const Coordinates& at) const {
  Coordinates copy = at;
  Rank rank;
  for (const Axis axis : kAxes) {
    const int value = coordinate(copy, axis);
    ensure(value >= 0 && value < extent_[index(axis)], "coordinates lie inside the plan");
    rank.value += value * stride_[index(axis)];
  }
  return rank;
}

Coordinates RankMap::coordinates(Rank rank) const {
  ensure(rank.value >= 0 && rank.value < size_, "a rank lies inside the plan");
  Coordinates at;
  for (const Axis axis : kAxes)
    coordinate(at, axis) = rank.value / stride_[index(axis)] % extent_[index(axis)];
  return at;
}

std::vector<Rank> RankMap::group(Axis axis, Coordinates at) const {
  std::vector<Rank> ranks;
  ranks.reserve(static_cast<std::size_t>(extent_[index(axis)]));
  for (int value = 0; value < extent_[index(axis)]; ++value) {
    coordinate(at, axis) = value;
    ranks.push_back(rank(at));
  }
  return ranks;
}

}  // namespace rehearse
