#include "kernels/attention_time.h"

#include <algorithm>
#include <cmath>

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr int kTile = 128;
/// The backward computes five products a tile pair where the forward computes two.
constexpr double kBackwardProducts = 2.5;

double ceil_div(std::int64_t value, int unit) {
  return static_cast<double>((value + unit - 1) / unit);
}

double log2_of(std::int64_t value) {
  return std::log2(static_cast<double>(std::max<std::int64_t>(value, 1)));
}

double efficiency_at(const std::vector<HeadSizeRate>& sizes, int head_dim) {
  ensure(!sizes.empty(), "an attention fit has an efficiency for some head size");
  const auto above = std::find_if(sizes.begin(), sizes.end(), [&](const HeadSizeRate& size) {
    return size.head_dim >= head_dim;
  });
  if (above == sizes.begin()) return sizes.front().efficiency;
  if (above == sizes.end()) return sizes.back().efficiency;
  const HeadSizeRate& below = *(above - 1);
  const double towards = double(head_dim - below.head_dim) / (above->head_dim - below.head_dim);
  return below.efficiency + towards * (above->efficiency - below.efficiency);
}

}  // namespace

double attention_time_s(const Operator& op, const AttentionFit& fit, const ProductRates& rates) {
  const double multiprocessors = rates.multiprocessors;
  // With documents or a window a row of tiles has on average as many as a shorter sequence's.
  const double key_tiles = std::max(1.0, op.pair_share * ceil_div(op.key_len, kTile));
  const double rows = static_cast<double>(op.batch * op.heads) * ceil_div(op.query_len, kTile);
  const double pairs = rows * (op.causal ? (key_tiles + 1) / 2 : key_tiles);
  const double efficiency = efficiency_at(fit.head_sizes, static_cast<int>(op.head_dim));
  const double rate = rates.flops_per_s / multiprocessors * efficiency;
  double tile_s = 4.0 * kTile * kTile * static_cast<double>(op.head_dim) / rate;
  if (op.pass != Pass::Forward) tile_s *= kBackwardProducts / fit.backward.rate;
  const double longest = std::max(pairs / multiprocessors + fit.tail_tiles * key_tiles, key_tiles);
  const double computing = tile_s * longest + fit.wave_s * std::ceil(rows / multiprocessors);
  const double moving = op.bytes / (fit.bandwidth * rates.memory_bandwidth_bytes_per_s);
  return fit.start_s + smooth_maximum(computing, moving, fit.sharpness);
}

ShapePoint attention_point(const Operator& op) {
  const double keys = op.pair_share * static_cast<double>(op.key_len);
  return {log2_of(op.batch * op.heads), std::log2(std::max(1.0, keys)),
          log2_of(op.heads / std::max<std::int64_t>(op.kv_heads, 1)), log2_of(op.head_dim)};
}

ShapePoint gemm_point(const Operator& op) {
  return {log2_of(op.m * std::max<std::int64_t>(op.batch, 1)), log2_of(op.n), log2_of(op.k), 0};
}

}  // namespace rehearse
