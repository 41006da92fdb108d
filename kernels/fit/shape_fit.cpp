#include "kernels/fit/shape_fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "kernels/attention_time.h"
#include "kernels/price_cache.h"

namespace rehearse {
namespace {

/// Training's products have long sides; those of a few tokens, or of slivers, matter little.
double gemm_weight(const Operator& op) {
  const std::int64_t least = std::min({op.m, op.n, op.k});
  if (least >= 1024) return 4;
  if (least >= 512) return 2;
  if (std::min(op.n, op.k) < 128) return 0.2;
  return least >= 128 ? 1 : 0.5;
}

double attention_weight(const Operator& op) {
  if (op.flops > 1e11) return 4;
  if (op.flops > 1e10) return 2;
  return op.flops > 1e9 ? 1 : 0.3;
}

bool is_large(const Operator& op) {
  if (op.family == OperatorFamily::Attention) return op.flops > 1e11;
  return std::min({op.m, op.n, op.k}) >= 1024;
}

}  // namespace

std::vector<FitSample> forward_samples(const std::vector<OperatorTable>& tables,
                                       OperatorFamily family, Precision precision,
                                       bool of_experts) {
  struct Sum {
    Operator op;
    double log_sum = 0;
    int count = 0;
  };
  const auto serves = [&](const OperatorSample& sample) {
    return sample.op.family == family && sample.op.precision == precision &&
           sample.op.pass == Pass::Forward && sample.native && sample.absolute &&
           is_expert_gemm(sample.op) == of_experts;
  };
  // Bursts and sustained runs do not mix; who measured only the latter has a sustained rate of 1.
  bool any_burst = false;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& sample : table.samples)
      any_burst = any_burst || (serves(sample) && !sample.sustained);

  std::map<std::array<std::int64_t, 12>, Sum> shapes;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& sample : table.samples) {
      const Operator& op = sample.op;
      if (!serves(sample) || (any_burst && sample.sustained)) continue;
      Sum& sum = shapes[shape_key(op).words];
      sum.op = op;
      sum.log_sum += std::log(sample.seconds);
      ++sum.count;
    }
  std::vector<FitSample> samples;
  samples.reserve(shapes.size());
  for (const auto& [key, sum] : shapes) {
    const bool attention = family == OperatorFamily::Attention;
    samples.push_back({.op = sum.op,
                       .seconds = std::exp(sum.log_sum / sum.count),
                       .at = attention ? attention_point(sum.op) : gemm_point(sum.op),
                       .weight = attention ? attention_weight(sum.op) : gemm_weight(sum.op),
                       .fold = static_cast<int>(ShapeKeyHash{}(shape_key(sum.op)) / 7 % kFolds),
                       .large = is_large(sum.op)});
  }
  return samples;
}

double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double scale = std::pow(10, 4 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

void round_knots(ResidualMap& map) {
  // Adding zero turns −0, which JSON's readers do not keep, into 0.
  for (ResidualKnot& knot : map.knots()) knot.value = std::round(knot.value * 1e4) / 1e4 + 0.0;
}

}  // namespace rehearse
