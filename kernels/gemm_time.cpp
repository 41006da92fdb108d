#include "kernels/gemm_time.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rehearse {
namespace {

constexpr double kWeightGradientRate = 0.95;

struct Tile {
  int rows, columns;
};
constexpr Tile kTiles[] = {{256, 256}, {256, 128}, {128, 256}, {128, 128}, {256, 64},
                           {64, 256},  {128, 64},  {64, 128},  {64, 64},   {32, 128},
                           {32, 64},   {16, 128},  {16, 64}};
constexpr int kSplits[] = {1, 2, 4, 8, 16};

double ceil_div(std::int64_t value, int unit) {
  return static_cast<double>((value + unit - 1) / unit);
}

/// Time of the waves of the fastest tiling.
double waves_s(const Operator& op, const GemmConstants& fit, double flops_per_s,
               int multiprocessors, double bandwidth) {
  const auto count = static_cast<double>(multiprocessors), depth = static_cast<double>(op.k);
  const double batch = static_cast<double>(std::max<std::int64_t>(op.batch, 1));
  const double result = batch * static_cast<double>(op.m) * static_cast<double>(op.n);
  const double per_sm = flops_per_s / count * fit.efficiency;
  double best = std::numeric_limits<double>::infinity();
  for (const Tile& tile : kTiles) {
    const double area = static_cast<double>(tile.rows) * tile.columns;
    const double intensity = area / (tile.rows + tile.columns);
    const double rate = per_sm * intensity / (intensity + fit.intensity);
    const double tiles = ceil_div(op.m, tile.rows) * ceil_div(op.n, tile.columns) * batch;
    for (const int split : kSplits) {
      const double reduction = split > 1 ? fit.split_s + 8 * split * result / bandwidth : 0;
      if (reduction >= best) break;
      const double part = std::max(depth / split, 32.0);
      const double waves = std::ceil(tiles * split / count);
      best = std::min(best, waves * (2 * area * part / rate + fit.tile_s) + reduction);
    }
  }
  return best;
}

}  // namespace

double smooth_maximum(double a, double b, double sharpness) {
  const double large = std::max(a, b), small = std::min(a, b);
  if (large <= 0) return 0;
  return large * std::pow(1 + std::pow(small / large, sharpness), 1 / sharpness);
}

double block_scaled_rate(const Operator& op, int compute_capability) {
  constexpr double kOnCudaCores = 0.77;
  constexpr int kBlackwell = 100;
  const bool adds_outside = op.precision == Precision::Fp8 && op.block_scaled;
  return adds_outside && compute_capability < kBlackwell ? kOnCudaCores : 1;
}

double tiled_gemm_s(const Operator& op, const GemmConstants& fit, const ProductRates& rates) {
  const double bandwidth = fit.bandwidth * rates.memory_bandwidth_bytes_per_s;
  const double computing = waves_s(op, fit, rates.flops_per_s, rates.multiprocessors, bandwidth);
  const double scaled = static_cast<double>(op.m) * static_cast<double>(op.k) *
                        static_cast<double>(std::max<std::int64_t>(op.batch, 1));
  return fit.start_s + smooth_maximum(computing, op.bytes / bandwidth, fit.sharpness) +
         fit.scaling_s * scaled;
}

double gemm_time_s(const Operator& op, const DeviceRates& rates, const GpuGeneration& generation,
                   double flops_per_s) {
  // The fits are of tensor cores; fp32 products run outside them.
  const bool fitted = generation.fitted && op.precision != Precision::Fp32;
  const GpuGeneration& source = fitted ? generation : data_sheet_generation();
  const GemmConstants& fit = op.precision == Precision::Fp8 ? source.gemm_fp8 : source.gemm;
  const double bandwidth = fit.bandwidth * rates.memory_bandwidth_bytes_per_s;
  const double rate = flops_per_s * generation.sustained *
                      (op.pass == Pass::WeightGradient ? kWeightGradientRate : 1) *
                      block_scaled_rate(op, rates.compute_capability);
  if (!fitted)
    return fit.start_s + std::max(op.flops / (fit.efficiency * rate), op.bytes / bandwidth);
  return tiled_gemm_s(op, fit,
                      {.flops_per_s = rate,
                       .memory_bandwidth_bytes_per_s = rates.memory_bandwidth_bytes_per_s,
                       .multiprocessors = rates.streaming_multiprocessors});
}

}  // namespace rehearse
