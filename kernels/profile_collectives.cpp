// Field tables of a profile's measured collectives.
#include "kernels/profile_tables.h"

namespace rehearse {
namespace {

const Names<CollectiveKind>& collective_names() {
  static const Names<CollectiveKind> names = [] {
    Names<CollectiveKind> all;
    for (const CollectiveKind kind : kCollectiveKinds)
      all.emplace_back(collective_name(kind), kind);
    return all;
  }();
  return names;
}

const FieldTable<CollectivePoint>& collective_point_table() {
  static const FieldTable<CollectivePoint> table =
      FieldTable<CollectivePoint>("collective_point", "A measured size")
          .number("bytes", &CollectivePoint::bytes, {1, 1e15}, "the whole buffer")
          .required()
          .number("time_s", &CollectivePoint::seconds, {1e-9, 1e6}, "measured time")
          .required();
  return table;
}

void check_points(CollectiveCurve& curve, ObjectCheck& check) {
  for (std::size_t i = 1; i < curve.points.size(); ++i)
    if (curve.points[i - 1].bytes >= curve.points[i].bytes)
      return check.problem("points", "sizes are not in ascending order",
                           "sort the points by \"bytes\", and keep one of each size");
}

}  // namespace

const FieldTable<CollectiveCurve>& collective_curve_table() {
  static const FieldTable<CollectiveCurve> table =
      FieldTable<CollectiveCurve>("collective_curve",
                                  "One collective among ranks of a node with nothing else on it")
          .choice("collective", &CollectiveCurve::collective, collective_names(), "which")
          .required()
          .integer<int>("ranks", &CollectiveCurve::ranks, {2, 1024}, "GPUs that took part")
          .required()
          .objects("points", &CollectiveCurve::points, collective_point_table(), {2, 10'000},
                   "measured sizes in ascending order")
          .required()
          .text("source", &CollectiveCurve::source, "what measured it")
          .check(check_points);
  return table;
}

}  // namespace rehearse
