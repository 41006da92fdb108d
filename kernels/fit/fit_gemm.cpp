// Constants of the tile model by a simplex search on a part of the samples, then corrections
// between knots fitted to all of them.

#include <algorithm>
#include <cmath>

#include "kernels/attention_time.h"
#include "kernels/fit/fold_errors.h"
#include "kernels/fit/residual_fit.h"
#include "kernels/fit/shape_fit.h"
#include "kernels/fit/simplex_search.h"
#include "kernels/gpu_generation.h"

namespace rehearse {
namespace {

/// Samples the constants are searched on, and how often they are tried.
constexpr std::size_t kSearchSamples = 1500;
constexpr int kSearchSteps = 500, kFoldSteps = 150;
/// Efficiency and intensity trade off: a bound keeps them where tiles make sense.
constexpr double kMostEfficiency = 1.3, kMostBandwidth = 1.0;
constexpr double kLeastSharpness = 1.2, kMostSharpness = 12;

ProductRates rates_of(const DeviceFacts& device, Precision precision) {
  return {.flops_per_s = peak_flops(device, precision),
          .memory_bandwidth_bytes_per_s = device.memory_bandwidth_bytes_per_s,
          .multiprocessors = device.streaming_multiprocessors};
}

GemmConstants constants_at(const std::vector<double>& x) {
  GemmConstants fit;
  fit.start_s = std::exp(x[0]);
  fit.efficiency = std::min(kMostEfficiency, std::exp(x[1]));
  fit.bandwidth = std::min(kMostBandwidth, std::exp(x[2]));
  fit.tile_s = std::exp(x[3]);
  fit.intensity = std::exp(x[4]);
  fit.sharpness = std::min(kLeastSharpness + std::exp(x[5]), kMostSharpness);
  fit.split_s = std::exp(x[6]);
  if (x.size() > 7) fit.scaling_s = std::exp(x[7]);
  return fit;
}

/// Products in fp8 are timed with the kernels that scale their input: some 5 bytes an element at
/// 2 TB/s, where a search begins.
constexpr double kScaling_s = 2.5e-12;

std::vector<double> variables_of(const GemmConstants& fit, Precision precision) {
  std::vector<double> x = {std::log(std::max(fit.start_s, 1e-7)),
                           std::log(fit.efficiency),
                           std::log(fit.bandwidth),
                           std::log(std::max(fit.tile_s, 1e-8)),
                           std::log(std::max(fit.intensity, 1.0)),
                           std::log(std::max(fit.sharpness, 1.5) - kLeastSharpness),
                           std::log(std::max(fit.split_s, 1e-7))};
  if (precision == Precision::Fp8)
    x.push_back(std::log(fit.scaling_s > 0 ? fit.scaling_s : kScaling_s));
  return x;
}

GemmConstants search_constants(const std::vector<FitSample>& samples, const ProductRates& rates,
                               const GemmConstants& start, Precision precision, int steps) {
  std::vector<const FitSample*> part;
  const std::size_t stride = std::max<std::size_t>(samples.size() / kSearchSamples, 1);
  for (std::size_t i = 0; i < samples.size(); i += stride) part.push_back(&samples[i]);
  const auto error = [&](const std::vector<double>& x) {
    const GemmConstants fit = constants_at(x);
    return mean_log_error(part, [&](const Operator& op) { return tiled_gemm_s(op, fit, rates); });
  };
  const std::vector<double> x = variables_of(start, precision);
  std::vector<double> step = {0.2, 0.1, 0.1, 0.5, 0.5, 0.3, 0.3, 0.2};
  step.resize(x.size());
  GemmConstants fit = constants_at(simplex_search(error, x, step, steps));
  fit.start_s = rounded(fit.start_s);
  fit.efficiency = rounded(fit.efficiency);
  fit.bandwidth = rounded(fit.bandwidth);
  fit.tile_s = rounded(fit.tile_s);
  fit.intensity = rounded(fit.intensity);
  fit.sharpness = rounded(fit.sharpness);
  fit.split_s = rounded(fit.split_s);
  fit.scaling_s = rounded(fit.scaling_s);
  return fit;
}

GemmFit fit_once(const std::vector<FitSample>& samples, Precision precision,
                 const DeviceFacts& device, const GemmConstants& start, int steps,
                 std::size_t most_knots) {
  const ProductRates rates = rates_of(device, precision);
  GemmFit fit;
  fit.precision = precision;
  fit.constants = search_constants(samples, rates, start, precision, steps);
  std::vector<ResidualSample> residuals;
  residuals.reserve(samples.size());
  for (const FitSample& sample : samples)
    residuals.push_back(
        {.at = sample.at,
         .value = std::log(sample.seconds / tiled_gemm_s(sample.op, fit.constants, rates)),
         .weight = sample.weight});
  fit.residuals = fit_residuals(residuals, most_knots);
  round_knots(fit.residuals);
  return fit;
}

}  // namespace

double burst_time_s(const Operator& op, const GemmFit& fit, const DeviceFacts& device) {
  return tiled_gemm_s(op, fit.constants, rates_of(device, op.precision)) *
         std::exp(fit.residuals.at(gemm_point(op)).value);
}

GemmFit fit_gemm(const std::vector<FitSample>& samples, Precision precision,
                 const DeviceFacts& device, const FitOptions& options) {
  const GpuGeneration& generation = gpu_generation(device);
  const GemmConstants& known = precision == Precision::Fp8 ? generation.gemm_fp8 : generation.gemm;
  // A quarter as many knots as samples, so that a small table is smoothed too.
  const auto knots = [&](std::size_t count) { return std::min(options.most_knots, count / 4); };
  GemmFit whole = fit_once(samples, precision, device, known, kSearchSteps, knots(samples.size()));
  whole.errors = fold_errors(
      samples, whole, options.cross_validate,
      [&](const std::vector<FitSample>& training) {
        return fit_once(training, precision, device, whole.constants, kFoldSteps,
                        knots(training.size()));
      },
      [&](const Operator& op, const GemmFit& fit) { return burst_time_s(op, fit, device); });
  return whole;
}

}  // namespace rehearse
