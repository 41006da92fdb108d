#pragma once
#include <compare>
#include <cstdint>

namespace rehearse {

/// A process of the distributed run, 0 ≤ value < dp·cp·tp·pp.
struct Rank {
  std::int32_t value = 0;
  auto operator<=>(const Rank&) const = default;
};

/// A GPU of the cluster, numbered node by node.
struct GpuId {
  std::int32_t value = 0;
  auto operator<=>(const GpuId&) const = default;
};

/// A directed capacity of the cluster's network: one direction of a cable, or a trunk of cables
/// among which traffic is spread evenly.
struct LinkId {
  std::int32_t value = 0;
  auto operator<=>(const LinkId&) const = default;
};

}  // namespace rehearse
