// As for products: constants of the tile model by a simplex search, corrections between knots.

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/attention_time.h"
#include "kernels/fit/fold_errors.h"
#include "kernels/fit/residual_fit.h"
#include "kernels/fit/shape_fit.h"
#include "kernels/fit/simplex_search.h"

namespace rehearse {
namespace {

constexpr std::size_t kSearchSamples = 1500;
constexpr int kSearchSteps = 600, kFoldSteps = 150;
constexpr std::size_t kMostAttentionKnots = 400;
/// A kernel alone starts and ends in this time; what more was timed is a framework's.
constexpr double kKernelStart_s = 3e-6;

ProductRates rates_of(const DeviceFacts& device, Precision precision) {
  return {.flops_per_s = peak_flops(device, precision),
          .memory_bandwidth_bytes_per_s = device.memory_bandwidth_bytes_per_s,
          .multiprocessors = device.streaming_multiprocessors};
}

AttentionFit fit_at(const std::vector<double>& x, const AttentionFit& shape) {
  AttentionFit fit = shape;
  fit.start_s = std::exp(x[0]);
  if (shape.tail_tiles > 0) fit.tail_tiles = std::exp(x[1]);
  fit.wave_s = std::exp(x[2]);
  fit.bandwidth = std::min(1.0, std::exp(x[3]));
  fit.sharpness = std::min(1.2 + std::exp(x[4]), 12.0);
  for (std::size_t i = 0; i < fit.head_sizes.size(); ++i)
    fit.head_sizes[i].efficiency = std::min(1.0, std::exp(x[5 + i]));
  return fit;
}

std::vector<double> variables_of(const AttentionFit& fit) {
  std::vector<double> x = {std::log(fit.start_s), std::log(std::max(fit.tail_tiles, 1e-3)),
                           std::log(std::max(fit.wave_s, 1e-9)), std::log(fit.bandwidth),
                           std::log(std::max(fit.sharpness, 1.5) - 1.2)};
  for (const HeadSizeRate& size : fit.head_sizes) x.push_back(std::log(size.efficiency));
  return x;
}

/// Where a search starts: FlashAttention's usual rates, for the head sizes that were measured.
AttentionFit first_guess(const std::vector<FitSample>& samples, Precision precision,
                         const DeviceFacts& device) {
  AttentionFit fit;
  fit.precision = precision;
  fit.start_s = 10e-6;
  // Where all tiles run one after the other, as on a CPU, none waits at the end for the others.
  fit.tail_tiles = device.streaming_multiprocessors > 1 ? 0.3 : 0;
  fit.wave_s = 0.5e-6;
  fit.bandwidth = 0.7;
  fit.sharpness = 2.5;
  std::set<int> sizes;
  for (const FitSample& sample : samples) sizes.insert(static_cast<int>(sample.op.head_dim));
  for (const int size : sizes) fit.head_sizes.push_back({.head_dim = size, .efficiency = 0.6});
  return fit;
}

AttentionFit search_constants(const std::vector<FitSample>& samples, const ProductRates& rates,
                              const AttentionFit& start, int steps) {
  std::vector<const FitSample*> part;
  const std::size_t stride = std::max<std::size_t>(samples.size() / kSearchSamples, 1);
  for (std::size_t i = 0; i < samples.size(); i += stride) part.push_back(&samples[i]);
  const auto error = [&](const std::vector<double>& x) {
    const AttentionFit fit = fit_at(x, start);
    return mean_log_error(part,
                          [&](const Operator& op) { return attention_time_s(op, fit, rates); });
  };
  const std::vector<double> x = variables_of(start);
  AttentionFit fit =
      fit_at(simplex_search(error, x, std::vector<double>(x.size(), 0.2), steps), start);
  fit.start_s = rounded(fit.start_s);
  fit.tail_tiles = rounded(fit.tail_tiles);
  fit.wave_s = rounded(fit.wave_s);
  fit.bandwidth = rounded(fit.bandwidth);
  fit.sharpness = rounded(fit.sharpness);
  for (HeadSizeRate& size : fit.head_sizes) size.efficiency = rounded(size.efficiency);
  return fit;
}

AttentionFit fit_once(const std::vector<FitSample>& samples, const DeviceFacts& device,
                      const AttentionFit& start, int steps, std::size_t most_knots) {
  const ProductRates rates = rates_of(device, start.precision);
  AttentionFit fit = search_constants(samples, rates, start, steps);
  fit.side_kernels_s = rounded(std::max(fit.start_s - kKernelStart_s, 0.0));
  std::vector<ResidualSample> residuals;
  residuals.reserve(samples.size());
  for (const FitSample& sample : samples)
    residuals.push_back(
        {.at = sample.at,
         .value = std::log(sample.seconds / attention_time_s(sample.op, fit, rates)),
         .weight = sample.weight});
  fit.residuals = fit_residuals(residuals, std::min(most_knots, samples.size() / 4));
  round_knots(fit.residuals);
  return fit;
}

}  // namespace

double burst_time_s(const Operator& op, const AttentionFit& fit, const DeviceFacts& device) {
  return attention_time_s(op, fit, rates_of(device, op.precision)) *
         std::exp(fit.residuals.at(attention_point(op)).value);
}

AttentionFit fit_attention(const std::vector<FitSample>& samples, Precision precision,
                           const DeviceFacts& device, const FitOptions& options) {
  const std::size_t knots = std::min(options.most_knots, kMostAttentionKnots);
  AttentionFit whole =
      fit_once(samples, device, first_guess(samples, precision, device), kSearchSteps, knots);
  whole.errors = fold_errors(
      samples, whole, options.cross_validate,
      [&](const std::vector<FitSample>& training) {
        AttentionFit start = whole;
        start.residuals = {};
        return fit_once(training, device, start, kFoldSteps, knots);
      },
      [&](const Operator& op, const AttentionFit& fit) { return burst_time_s(op, fit, device); });
  return whole;
}

}  // namespace rehearse
