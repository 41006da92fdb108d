#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "kernels/cost_model.h"

namespace rehearse {

/// Everything of an operator that its price depends on, as words to compare and hash.
struct ShapeKey {
  std::array<std::int64_t, 12> words{};
  bool operator==(const ShapeKey&) const = default;
};
struct ShapeKeyHash {
  std::size_t operator()(const ShapeKey& key) const;
};

/// The whole operator.
ShapeKey shape_key(const Operator& op);
/// What a measured sample must match: traffic follows from the shape but for memory operators,
/// and names matter for these only.
ShapeKey sample_key(const Operator& op);

/// Prices by shape, so that an operator is worked out once. Never iterated. Safe to use from
/// several threads; some 100 ns a look-up.
class PriceCache {
 public:
  bool find(const ShapeKey& key, Cost& cost) const;
  void keep(const ShapeKey& key, const Cost& cost);

 private:
  mutable std::mutex mutex_;
  std::unordered_map<ShapeKey, Cost, ShapeKeyHash> prices_;
};

}  // namespace rehearse
