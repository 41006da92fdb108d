#pragma once
#include <cstddef>
#include <vector>

#include "kernels/fit/operator_table.h"
#include "kernels/profile.h"

namespace rehearse {

inline constexpr int kFolds = 5;

/// A measured shape as fits use it; repeated measurements are one, with their geometric mean.
struct FitSample {
  Operator op;
  double seconds = 0;
  ShapePoint at{};
  double weight = 1;
  int fold = 0;        ///< follows from the shape alone
  bool large = false;  ///< counts among the large samples of FitErrors
};

/// Forward samples of one family and precision, in order of their shapes. Products are those of
/// experts, or all others.
std::vector<FitSample> forward_samples(const std::vector<OperatorTable>& tables,
                                       OperatorFamily family, Precision precision,
                                       bool of_experts = false);

struct FitOptions {
  std::size_t most_knots = 600;
  bool cross_validate = true;
};

/// Constants, corrections and errors of products; the passes' rates are left as they are.
/// REQUIRES: samples.
GemmFit fit_gemm(const std::vector<FitSample>& samples, Precision precision,
                 const DeviceFacts& device, const FitOptions& options);
AttentionFit fit_attention(const std::vector<FitSample>& samples, Precision precision,
                           const DeviceFacts& device, const FitOptions& options);

/// Burst time of a forward by a fit.
double burst_time_s(const Operator& op, const GemmFit& fit, const DeviceFacts& device);
double burst_time_s(const Operator& op, const AttentionFit& fit, const DeviceFacts& device);

/// Five significant digits: what a fit knows of a constant.
double rounded(double value);
/// Four decimals of every correction.
void round_knots(ResidualMap& map);

}  // namespace rehearse
