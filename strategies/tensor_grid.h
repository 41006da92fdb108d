#pragma once
#include <vector>

#include "kernels/layer.h"
#include "topologies/cluster.h"

namespace rehearse {

/// Groups that a tensor group's ranks make for a collective, on a grid of `rows` rows: all of them,
/// its rows, or its columns. Ranks of a row are neighbours in the order of the group.
inline std::vector<std::vector<GpuId>> grid_parts(CommGroup group, const std::vector<GpuId>& ranks,
                                                  int rows) {
  if (group == CommGroup::Tensor) return {ranks};
  const std::size_t columns = ranks.size() / static_cast<std::size_t>(rows);
  const bool by_row = group == CommGroup::TensorRow;
  std::vector<std::vector<GpuId>> parts(by_row ? static_cast<std::size_t>(rows) : columns);
  for (std::size_t i = 0; i < ranks.size(); ++i)
    parts[by_row ? i / columns : i % columns].push_back(ranks[i]);
  return parts;
}

}  // namespace rehearse
