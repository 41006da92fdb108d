#include "kernels/price_cache.h"

#include <bit>

namespace rehearse {
namespace {

/// A search over plans sees thousands of shapes; a program that prices more starts anew rather
/// than growing without end.
constexpr std::size_t kMostPrices = 1'000'000;

ShapeKey key_of(const Operator& op, bool with_name, bool with_bytes) {
  const std::int64_t kind =
      static_cast<std::int64_t>(op.family) | static_cast<std::int64_t>(op.pass) << 8 |
      static_cast<std::int64_t>(op.precision) << 16 | std::int64_t{op.causal} << 24 |
      std::int64_t{op.accumulate_fp32} << 25 | std::int64_t{op.block_scaled} << 26 |
      std::int64_t{is_expert_gemm(op)} << 27 |
      (with_name ? static_cast<std::int64_t>(op.name) << 32 : 0);
  return {{kind, op.m, op.n, op.k, op.batch, op.query_len, op.key_len, op.heads, op.kv_heads,
           op.head_dim, with_bytes ? std::bit_cast<std::int64_t>(op.bytes) : 0,
           op.pair_share == 1 ? 0 : std::bit_cast<std::int64_t>(op.pair_share)}};
}

}  // namespace

std::size_t ShapeKeyHash::operator()(const ShapeKey& key) const {
  // Words are mixed as in splitmix64 (Steele, Lea, Flood 2014).
  std::uint64_t hash = 0x9e3779b97f4a7c15u;
  for (const std::int64_t word : key.words) {
    hash ^= static_cast<std::uint64_t>(word);
    hash *= 0xbf58476d1ce4e5b9u;
    hash ^= hash >> 29;
  }
  return hash;
}

ShapeKey shape_key(const Operator& op) {
  return key_of(op, op.family == OperatorFamily::Memory, true);
}

ShapeKey sample_key(const Operator& op) {
  const bool memory = op.family == OperatorFamily::Memory;
  return key_of(op, memory, memory);
}

bool PriceCache::find(const ShapeKey& key, Cost& cost) const {
  const std::lock_guard lock(mutex_);
  const auto at = prices_.find(key);
  if (at == prices_.end()) return false;
  cost = at->second;
  return true;
}

void PriceCache::keep(const ShapeKey& key, const Cost& cost) {
  const std::lock_guard lock(mutex_);
  if (prices_.size() >= kMostPrices) prices_.clear();
  prices_.emplace(key, cost);
}

}  // namespace rehearse
