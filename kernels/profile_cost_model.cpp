// Prices by a profile: physical model × interpolated correction.
//
// Clocks. Tables are bursts; a step runs for minutes at the clocks its power limit allows, so
// computing takes 1/sustained_rate as long, moving does not. The correction found for the burst
// is kept: t = t_burst · exp(residual) · model(sustained)/model(burst).
//
// Other GPUs. A part with another power limit or clock sustains another share of its peak. Dynamic
// power goes with f·V² and V with f, so a multiprocessor given p watts runs at f ∝ p^(1/3); what
// the data-sheet rate already says of f is divided out.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>

#include "kernels/attention_time.h"
#include "kernels/gemm_time.h"
#include "kernels/price_cache.h"
#include "kernels/profile.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Corrections hold this far from a knot, in doublings of the shape; beyond, errors widen.
constexpr double kReach = 1.5;
constexpr double kWidening = 0.5;
/// A repeated measurement of the same product by another software image: 3 % in the median.
constexpr double kMeasuredError = 0.03;
/// Sustained rates vary by the machine: H200 ran long products at 690 or 790 TFLOP/s, ± 6 %.
constexpr double kSustainedError = 0.06;
/// Constants of H200 price H100 with 9.6 % error, with its corrections 6.2 %; other architectures
/// 14 to 17 %, attention up to 27 %.
constexpr double kScaledNearError = 0.10, kScaledFarError = 0.25;
constexpr double kUnknownError = 0.15;  ///< of fits that do not state theirs
/// Kernels of attention start and end in about this time, whatever a framework runs beside them.
constexpr double kLeastAttention_s = 3e-6;

/// A product alone starts and ends in this time (bf16 fits: 2 to 3 µs).
constexpr double kMostProductStart_s = 3e-6;

/// Same rates as far as prices are concerned.
bool same_device(const DeviceFacts& a, const DeviceFacts& b) {
  return a.gpu == b.gpu && a.bf16_flops == b.bf16_flops && a.fp16_flops == b.fp16_flops &&
         a.fp8_flops == b.fp8_flops && a.fp32_flops == b.fp32_flops &&
         a.memory_bandwidth_bytes_per_s == b.memory_bandwidth_bytes_per_s &&
         a.streaming_multiprocessors == b.streaming_multiprocessors;
}

/// How much less of its peak `to` sustains than `from`; at most 1.
double power_share(const DeviceFacts& from, const DeviceFacts& to) {
  if (from.power_w <= 0 || to.power_w <= 0) return 1;
  const double power =
      (to.power_w / to.streaming_multiprocessors) / (from.power_w / from.streaming_multiprocessors);
  const double clock = (to.bf16_flops / to.streaming_multiprocessors) /
                       (from.bf16_flops / from.streaming_multiprocessors);
  return clock > 0 ? std::min(1.0, std::cbrt(power) / clock) : 1;
}

double quadrature(double a, double b) { return std::sqrt(a * a + b * b); }

class ProfileCostModel final : public CostModel {
 public:
  ProfileCostModel(Profile profile, const DeviceFacts& device, ClockRegime clocks)
      : profile_(std::move(profile)),
        device_(device),
        clocks_(clocks),
        scaled_(!same_device(profile_.device, device)),
        same_architecture_(profile_.device.compute_capability == device.compute_capability),
        fallback_(roofline_cost_model(device)) {
    if (clocks_ == ClockRegime::Sustained)
      clock_share_ =
          profile_.sustained_rate.value * (scaled_ ? power_share(profile_.device, device) : 1);
    index_memory_fits();
    for (const ProfileSample& sample : profile_.samples)
      samples_.insert_or_assign(key_of(sample), Sampled{sample.seconds, sample.deviation});
  }

  Cost cost(const Operator& op) const override {
    const ShapeKey key = shape_key(op);
    Cost cost;
    if (cache_.find(key, cost)) return cost;
    cost = worked_out(op);
    cache_.keep(key, cost);
    return cost;
  }

  double launch_s() const override { return profile_.launch_s.value; }

  const std::vector<CollectiveCurve>& collectives() const override {
    return scaled_ ? CostModel::collectives() : profile_.collectives;
  }

  std::string description() const override {
    std::string text = "operator costs: profile " + profile_.gpu + "." + profile_.stack;
    if (scaled_) text += ", scaled to " + device_.gpu + " by the data sheets";
    char rate[32];
    std::snprintf(rate, sizeof rate, "%.2f", clock_share_);
    return text + "; computing at " + rate + " of the measured bursts' rate";
  }

 private:
  static ShapeKey key_of(const ProfileSample& sample) {
    Operator op;
    op.family = sample.family;
    op.name = sample.name;
    op.pass = sample.pass;
    op.precision = sample.family == OperatorFamily::Memory ? Precision::Bf16 : sample.precision;
    op.m = sample.m;
    op.n = sample.n;
    op.k = sample.k;
    op.accumulate_fp32 = sample.accumulate_fp32;
    op.batch = sample.family == OperatorFamily::Memory ? 0 : sample.batch;
    op.query_len = sample.query_len;
    op.key_len = sample.key_len;
    op.heads = sample.heads;
    op.kv_heads = sample.kv_heads;
    op.head_dim = sample.head_dim;
    op.causal = sample.causal;
    op.bytes = sample.bytes;
    return sample_key(op);
  }

  void index_memory_fits() {
    for (const MemoryFit& fit : profile_.memory)
      for (const std::string& text : fit.operators)
        for (int name = 0; name < kOperatorNameCount; ++name)
          for (int pass = 0; pass < kPasses; ++pass) {
            const std::string plain = operator_name(static_cast<OperatorName>(name));
            const MemoryFit*& slot = memory_[static_cast<std::size_t>(name * kPasses + pass)];
            if (text == plain + "/" + pass_name(static_cast<Pass>(pass)))
              slot = &fit;
            else if (text == plain && !slot)
              slot = &fit;
          }
  }

  Cost worked_out(const Operator& op) const {
    if (!scaled_ && !samples_.empty()) {
      if (const Sampled* at = sample_of(op))
        return {.seconds = at->seconds,
                .source = CostSource::Measured,
                .relative_error = kMeasuredError,
                .deviation = at->deviation};
    }
    switch (op.family) {
      case OperatorFamily::Gemm:
        return gemm_cost(op);
      case OperatorFamily::Attention:
        return attention_cost(op);
      case OperatorFamily::Memory:
        return memory_cost(op);
    }
    ensure(false, "every family of operators has a price");
    return {};
  }

  struct Sampled {
    double seconds, deviation;
  };
  /// Where a profile says nothing of experts' kernel, what a product alike took stands for it.
  const Sampled* sample_of(const Operator& op) const {
    auto at = samples_.find(sample_key(op));
    if (at == samples_.end() && is_expert_gemm(op) && profile_.expert_gemm.empty()) {
      Operator plain = op;
      plain.name = OperatorName::Qkv;
      at = samples_.find(sample_key(plain));
    }
    return at == samples_.end() ? nullptr : &at->second;
  }

  /// The fit of the precision that an operator really runs in; fp16 and bf16 are the same units.
  template <class Fit>
  const Fit* fit_of(const std::vector<Fit>& fits, Precision precision) const {
    const auto find = [&](Precision wanted) -> const Fit* {
      for (const Fit& fit : fits)
        if (fit.precision == wanted) return &fit;
      return nullptr;
    };
    if (precision == Precision::Fp8 && device_.fp8_flops <= 0) precision = Precision::Bf16;
    if (peak_flops(device_, precision) <= 0) return nullptr;
    if (const Fit* fit = find(precision)) return fit;
    if (precision == Precision::Fp16) return find(Precision::Bf16);
    if (precision == Precision::Bf16) return find(Precision::Fp16);
    return nullptr;
  }

  ProductRates rates(Precision precision, double share) const {
    return {.flops_per_s = share * peak_flops(device_, precision),
            .memory_bandwidth_bytes_per_s = device_.memory_bandwidth_bytes_per_s,
            .multiprocessors = device_.streaming_multiprocessors};
  }

  Precision executed(Precision precision) const {
    return precision == Precision::Fp8 && device_.fp8_flops <= 0 ? Precision::Bf16 : precision;
  }

  Cost gemm_cost(const Operator& op) const {
    const GemmFit* fit = is_expert_gemm(op) ? fit_of(profile_.expert_gemm, op.precision) : nullptr;
    const bool of_kind = fit != nullptr || op.batch <= 1;
    if (!fit) fit = fit_of(profile_.gemm, op.precision);
    if (!fit) return fallback_->cost(op);
    GemmConstants constants = fit->constants;
    if ((clocks_ == ClockRegime::Sustained || op.block_scaled) && constants.scaling_s > 0) {
      // A step has operators of its own that scale and convert, and measured products with scales
      // for blocks are without them.
      constants.scaling_s = 0;
      constants.start_s = std::min(constants.start_s, kMostProductStart_s);
    }
    const PassRate* pass = op.pass == Pass::InputGradient    ? &fit->input_gradient
                           : op.pass == Pass::WeightGradient ? &fit->weight_gradient
                                                             : nullptr;
    const Precision precision = executed(op.precision);
    const double rate =
        (pass ? pass->rate : 1) *
        (precision == Precision::Fp8 ? block_scaled_rate(op, device_.compute_capability) : 1);
    const double burst_s = tiled_gemm_s(op, constants, rates(precision, rate));
    const double clocked_s =
        clock_share_ == 1 ? burst_s
                          : tiled_gemm_s(op, constants, rates(precision, rate * clock_share_));
    const bool large = std::min({op.m, op.n, op.k}) >= 1024;
    return corrected(clocked_s, fit->residuals, gemm_point(op), fit->errors, large, pass, of_kind);
  }

  Cost attention_cost(const Operator& op) const {
    const AttentionFit* fit = fit_of(profile_.attention, op.precision);
    if (!fit) return fallback_->cost(op);
    const Precision precision = executed(op.precision);
    const double clocked_s = attention_time_s(op, *fit, rates(precision, clock_share_));
    Cost cost = corrected(clocked_s, fit->residuals, attention_point(op), fit->errors,
                          op.flops > 1e11, op.pass == Pass::Forward ? nullptr : &fit->backward,
                          op.causal && op.query_len == op.key_len);
    // A step does not run the small kernels that were timed beside the measured one.
    if (clocks_ == ClockRegime::Sustained)
      cost.seconds = std::max(cost.seconds - fit->side_kernels_s, kLeastAttention_s);
    return cost;
  }

  /// The model's time with its correction; `of_kind`: the operator is of the kind measured.
  Cost corrected(double model_s, const ResidualMap& residuals, const ShapePoint& point,
                 const FitErrors& errors, bool large, const PassRate* pass, bool of_kind) const {
    const bool stated = errors.samples > 0;
    double error = !stated                             ? kUnknownError
                   : large && errors.large_samples > 0 ? errors.held_out_large
                                                       : errors.held_out;
    CostSource source = CostSource::Fitted;
    double correction = 0;
    if (!residuals.knots().empty() && (!scaled_ || same_architecture_)) {
      const ResidualMap::Estimate estimate = residuals.at(point);
      correction = estimate.value;
      if (estimate.distance <= kReach && of_kind)
        source = CostSource::Interpolated;
      else
        error *= 1 + kWidening * std::max(estimate.distance - kReach, of_kind ? 0.0 : 1.0);
    }
    if (pass) {
      error = quadrature(error, pass->spread);
      source = std::max(source, pass->evidence);
    }
    if (scaled_) {
      error = quadrature(error, same_architecture_ ? kScaledNearError : kScaledFarError);
      source = std::max(source, CostSource::Scaled);
    }
    if (clocks_ == ClockRegime::Sustained) error = quadrature(error, kSustainedError);
    return {.seconds = model_s * std::exp(correction), .source = source, .relative_error = error};
  }

  Cost memory_cost(const Operator& op) const {
    const MemoryFit* fit = memory_[static_cast<std::size_t>(static_cast<int>(op.name) * kPasses +
                                                            static_cast<int>(op.pass))];
    if (!fit) return fallback_->cost(op);
    const double seconds =
        fit->start_s + op.bytes / (memory_share(*fit, op.bytes, device_.l2_bytes) *
                                   device_.memory_bandwidth_bytes_per_s);
    if (!scaled_)
      return {.seconds = seconds, .source = fit->evidence, .relative_error = fit->relative_error};
    return {.seconds = seconds,
            .source = std::max(fit->evidence, CostSource::Scaled),
            .relative_error = quadrature(fit->relative_error, kScaledNearError)};
  }

  static constexpr int kPasses = static_cast<int>(Pass::Update) + 1;

  Profile profile_;
  DeviceFacts device_;
  ClockRegime clocks_;
  bool scaled_, same_architecture_;
  std::unique_ptr<CostModel> fallback_;
  double clock_share_ = 1;
  std::array<const MemoryFit*, static_cast<std::size_t>(kOperatorNameCount* kPasses)> memory_{};
  std::unordered_map<ShapeKey, Sampled, ShapeKeyHash> samples_;
  mutable PriceCache cache_;
};

}  // namespace

double memory_share(const MemoryFit& fit, double bytes, double l2_bytes) {
  constexpr double kCachedUpTo = 0.6, kBeyondFrom = 2;
  if (l2_bytes <= 0 || bytes >= kBeyondFrom * l2_bytes) return fit.memory_share;
  if (bytes <= kCachedUpTo * l2_bytes) return fit.cached_share;
  const double towards =
      std::log(bytes / (kCachedUpTo * l2_bytes)) / std::log(kBeyondFrom / kCachedUpTo);
  return fit.cached_share * std::pow(fit.memory_share / fit.cached_share, towards);
}

std::unique_ptr<CostModel> profile_cost_model(Profile profile, const DeviceFacts& device,
                                              ClockRegime clocks) {
  return std::make_unique<ProfileCostModel>(std::move(profile), device, clocks);
}

}  // namespace rehearse
