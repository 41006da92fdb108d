#pragma once
#include <cstdint>
#include <vector>

namespace rehearse {

/// A box of a tensor: elements [begin, begin + extent) of each dimension.
struct TensorBox {
  std::vector<std::int64_t> begin, extent;

  std::int64_t elements() const;
  bool operator==(const TensorBox&) const = default;
};

/// The elements that both have; no elements where they have none in common.
TensorBox intersection(const TensorBox& a, const TensorBox& b);

/// `from` without `part`, as boxes that do not overlap. REQUIRES: `part` lies inside `from`.
std::vector<TensorBox> difference(const TensorBox& from, const TensorBox& part);

/// Copies the elements of `part` from a row-major box to another. REQUIRES: both contain `part`.
void copy_box(const TensorBox& part, const TensorBox& from, const float* source,
              const TensorBox& to, float* target);

}  // namespace rehearse
