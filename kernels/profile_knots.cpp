#include <cmath>
#include <cstdint>

#include "kernels/profile_tables.h"

namespace rehearse {
namespace {

/// Attention over a single token is thirty times faster than a whole tile of it; nothing is as far
/// off as exp(5).
constexpr double kMostCorrection = 5;
constexpr std::int64_t kMostExtent = std::int64_t{1} << 40;

bool read_knot(const JsonValue& row, Reading& reading, std::size_t shape, ResidualKnot& knot) {
  if (!row.is_list() || row.items.size() != shape + 1) {
    reading.problem(row.offset, "a knot is a list of " + std::to_string(shape) +
                                    " sizes and the correction there");
    return false;
  }
  const int before = reading.problem_count();
  for (std::size_t i = 0; i < shape; ++i) {
    const Reading::Inside inside(reading, i);
    std::int64_t size = 1;
    if (read_integer(row.items[i], reading, {1, static_cast<double>(kMostExtent)}, size))
      knot.at[i] = std::log2(static_cast<double>(size));
  }
  const Reading::Inside inside(reading, shape);
  read_number(row.items[shape], reading, {-kMostCorrection, kMostCorrection}, knot.value);
  return reading.problem_count() == before;
}

}  // namespace

JsonValue knots_to_json(const ResidualMap& map, std::size_t shape) {
  JsonValue list = JsonValue::list();
  for (const ResidualKnot& knot : map.knots()) {
    JsonValue row = JsonValue::list();
    for (std::size_t i = 0; i < shape; ++i)
      row.items.push_back(JsonValue::of(static_cast<std::int64_t>(std::llround(exp2(knot.at[i])))));
    row.items.push_back(JsonValue::of(knot.value));
    list.items.push_back(std::move(row));
  }
  return list;
}

void read_knots(const JsonValue& value, Reading& reading, std::size_t shape, ResidualMap& map) {
  if (!check_list(value, reading, {0, 100'000})) return;
  std::vector<ResidualKnot> knots;
  knots.reserve(value.items.size());
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    const Reading::Inside inside(reading, i);
    ResidualKnot knot;
    if (read_knot(value.items[i], reading, shape, knot)) knots.push_back(knot);
  }
  map = ResidualMap(std::move(knots));
}

}  // namespace rehearse
