#include "plan/rank_map.h"

#include <algorithm>
#include <random>

#include "tests/catch.h"

namespace rehearse {
namespace {

int& along(Coordinates& at, Axis axis) {
  if (axis == Axis::Tensor) return at.tensor;
  if (axis == Axis::Context) return at.context;
  return axis == Axis::Data ? at.data : at.pipeline;
}

int extent(const Plan& plan, Axis axis) {
  if (axis == Axis::Tensor) return plan.tp;
  if (axis == Axis::Context) return plan.cp;
  return axis == Axis::Data ? plan.dp : plan.pp;
}

}  // namespace

TEST_CASE("Megatron-LM's default order: tensor ranks are neighbours, stages are farthest apart") {
  Plan plan;
  plan.tp = 2, plan.cp = 2, plan.dp = 3, plan.pp = 4;
  const RankMap map(plan);
  CHECK(map.size() == 48);
  CHECK(map.rank({.tensor = 1}).value == 1);
  CHECK(map.rank({.context = 1}).value == 2);
  CHECK(map.rank({.data = 1}).value == 4);
  CHECK(map.rank({.pipeline = 1}).value == 12);
  CHECK(map.group(Axis::Data, {.tensor = 1, .pipeline = 2}) ==
        std::vector<Rank>{Rank{25}, Rank{29}, Rank{33}});
  CHECK(map.gpu(Rank{47}) == GpuId{47});
}

TEST_CASE("Any rank order numbers the ranks as nested loops over the axes do") {
  std::mt19937 random(11);
  const auto draw = [&](int high) { return std::uniform_int_distribution<int>(1, high)(random); };
  std::array<Axis, kAxisCount> order{Axis::Tensor, Axis::Context, Axis::Data, Axis::Pipeline};
  do {
    Plan plan;
    plan.tp = draw(4), plan.cp = draw(3), plan.dp = draw(5), plan.pp = draw(4);
    plan.rank_order = order;
    const RankMap map(plan);
    REQUIRE(map.size() == world_size(plan));
    Coordinates at;
    std::int32_t expected = 0;
    for (int d = 0; d < extent(plan, order[3]); ++d)
      for (int c = 0; c < extent(plan, order[2]); ++c)
        for (int b = 0; b < extent(plan, order[1]); ++b)
          for (int a = 0; a < extent(plan, order[0]); ++a) {
            along(at, order[0]) = a, along(at, order[1]) = b;
            along(at, order[2]) = c, along(at, order[3]) = d;
            CHECK(map.rank(at) == Rank{expected});
            CHECK(map.coordinates(Rank{expected}) == at);
            ++expected;
          }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("The groups of an axis cover every rank once, and their members differ on it alone") {
  Plan plan;
  plan.tp = 3, plan.cp = 2, plan.dp = 4, plan.pp = 2;
  plan.rank_order = {Axis::Pipeline, Axis::Tensor, Axis::Data, Axis::Context};
  const RankMap map(plan);
  for (const Axis axis : plan.rank_order) {
    std::vector<int> seen(static_cast<std::size_t>(map.size()), 0);
    for (std::int32_t r = 0; r < map.size(); ++r) {
      const Coordinates at = map.coordinates(Rank{r});
      Coordinates first = at;
      along(first, axis) = 0;
      const std::vector<Rank> group = map.group(axis, at);
      REQUIRE(static_cast<int>(group.size()) == extent(plan, axis));
      CHECK(std::count(group.begin(), group.end(), Rank{r}) == 1);
      if (at == first)
        for (const Rank member : group) ++seen[static_cast<std::size_t>(member.value)];
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
  }
}

}  // namespace rehearse
