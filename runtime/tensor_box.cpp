#include "runtime/tensor_box.h"

#include <algorithm>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Where an element of `part`, given by its indices, lies in a row-major box.
std::int64_t offset_in(const TensorBox& box, const std::vector<std::int64_t>& at) {
  std::int64_t offset = 0;
  for (std::size_t d = 0; d < at.size(); ++d)
    offset = offset * box.extent[d] + at[d] - box.begin[d];
  return offset;
}

}  // namespace

std::int64_t TensorBox::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t length : extent) product *= length;
  return product;
}

TensorBox intersection(const TensorBox& a, const TensorBox& b) {
  ensure(a.begin.size() == b.begin.size(), "boxes of one tensor have the same dimensions");
  TensorBox common = a;
  for (std::size_t d = 0; d < a.begin.size(); ++d) {
    common.begin[d] = std::max(a.begin[d], b.begin[d]);
    const std::int64_t end = std::min(a.begin[d] + a.extent[d], b.begin[d] + b.extent[d]);
    common.extent[d] = std::max<std::int64_t>(0, end - common.begin[d]);
  }
  return common;
}

std::vector<TensorBox> difference(const TensorBox& from, const TensorBox& part) {
  std::vector<TensorBox> rest;
  TensorBox left = from;
  // Along each dimension what lies before and behind the part is cut off; the middle goes on.
  for (std::size_t d = 0; d < from.begin.size(); ++d) {
    const std::int64_t begin = part.begin[d], end = begin + part.extent[d];
    const std::int64_t left_end = left.begin[d] + left.extent[d];
    TensorBox cut = left;
    cut.extent[d] = begin - left.begin[d];
    if (cut.elements() > 0) rest.push_back(cut);
    cut.begin[d] = end;
    cut.extent[d] = left_end - end;
    if (cut.elements() > 0) rest.push_back(cut);
    left.begin[d] = begin;
    left.extent[d] = end - begin;
  }
  return rest;
}

void copy_box(const TensorBox& part, const TensorBox& from, const float* source,
              const TensorBox& to, float* target) {
  if (part.elements() == 0) return;
  std::vector<std::int64_t> at = part.begin;
  const std::int64_t row = at.empty() ? 1 : part.extent.back();
  for (;;) {
    std::copy_n(source + offset_in(from, at), row, target + offset_in(to, at));
    // The next row: the last dimension but one counts up, and carries over.
    std::ptrdiff_t d = static_cast<std::ptrdiff_t>(at.size()) - 2;
    for (; d >= 0; --d) {
      const auto i = static_cast<std::size_t>(d);
      if (++at[i] < part.begin[i] + part.extent[i]) break;
      at[i] = part.begin[i];
    }
    if (d < 0) return;
  }
}

}  // namespace rehearse
