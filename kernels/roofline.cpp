// The roofline: what an operator would take on a GPU that nobody has measured here.
//   product    gemm_time.h
//   attention  t0 + tau·max(W/SM + tail·n_k, n_k) + waves·ov + bytes/(beta·BW), with tiles of
//              128×128, W the tile pairs above the diagonal, tau = 4·128²·d/(P/SM·e);
//              the backward has 2.5 times the FLOPs at 0.84 of the rate
//   memory     t0 + bytes/(share·BW)
// Rates are sustained ones: burst fits times the generation's clock factor.

#include <algorithm>
#include <cmath>

#include "kernels/cost_model.h"
#include "kernels/gemm_time.h"
#include "kernels/gpu_generation.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr int kAttentionTile = 128;
/// Of an attention kernel alone; the fits' 10 to 15 µs hold a framework's small kernels as well.
constexpr double kAttentionStart_s = 3e-6;
/// cuDNN 9.19 on H200, causal bf16: backward/forward time 2.98 = 2.5 / 0.84.
constexpr double kAttentionBackwardRate = 0.84;
/// Memory-bound kernels start and end in 1 to 3 µs.
constexpr double kMemoryStart_s = 2e-6;
/// A framework's host work for an operator: 5 to 10 µs in eager PyTorch.
constexpr double kLaunch_s = 7.5e-6;
/// Of memory passes on a GPU they were not measured on.
constexpr double kMemoryError = 0.15;

/// Share of the data-sheet bandwidth that a pass reaches on tensors beyond the cache. Measured
/// with PyTorch on A100 (means of 65 to 80 shapes of NeuSight's data set, commit 6945927d):
/// add, mul, GeLU 0.86, layer norm 0.66, softmax 0.69; rotary positions 0.45 (Vidur, commit
/// 7d475133). cuDNN's RMSNorm on H200 reaches 0.67 to 0.80.
double bandwidth_share(const Operator& op) {
  constexpr double kElementwise = 0.86, kNorm = 0.66, kSoftmax = 0.69, kRope = 0.45;
  switch (op.name) {
    case OperatorName::Norm:
    case OperatorName::FinalNorm:
      return kNorm;
    case OperatorName::Attention:
    case OperatorName::CrossEntropy:
      return kSoftmax;
    case OperatorName::Rope:
      return kRope;
    default:
      return kElementwise;
  }
}

double ceil_div(std::int64_t value, int unit) {
  return static_cast<double>((value + unit - 1) / unit);
}

double attention_time_s(const Operator& op, const DeviceRates& rates,
                        const GpuGeneration& generation, double flops_per_s) {
  const AttentionConstants& fit = generation.attention;
  const double multiprocessors = rates.streaming_multiprocessors;
  const double query_tiles = ceil_div(op.query_len, kAttentionTile);
  const double key_tiles = std::max(1.0, op.pair_share * ceil_div(op.key_len, kAttentionTile));
  const double rows = static_cast<double>(op.batch * op.heads) * query_tiles;
  const double pairs = rows * (op.causal ? (key_tiles + 1) / 2 : key_tiles);
  const double size = static_cast<double>(op.head_dim);
  // Between the measured head sizes the efficiency is interpolated, beyond them held.
  const double towards_128 = std::clamp((size - 64) / 64, 0.0, 1.0);
  const double efficiency =
      fit.efficiency_64 + towards_128 * (fit.efficiency_128 - fit.efficiency_64);
  const double rate = flops_per_s * generation.sustained / multiprocessors * efficiency;
  double tile_s = 4.0 * kAttentionTile * kAttentionTile * size / rate;
  if (op.pass != Pass::Forward) tile_s *= 2.5 / kAttentionBackwardRate;
  const double longest = std::max(pairs / multiprocessors + fit.tail_tiles * key_tiles, key_tiles);
  return kAttentionStart_s + tile_s * longest + fit.wave_s * std::ceil(rows / multiprocessors) +
         op.bytes / (fit.bandwidth * rates.memory_bandwidth_bytes_per_s);
}

/// The precision a product really runs in: the op's own or the next wider one with a unit.
Precision executed(const DeviceRates& rates, Precision precision) {
  if (precision == Precision::Fp8 && rates.fp8_flops <= 0) precision = Precision::Bf16;
  if (precision == Precision::Bf16 && rates.bf16_flops <= 0) precision = Precision::Fp32;
  if (precision == Precision::Fp16 && rates.fp16_flops <= 0) precision = Precision::Fp32;
  return precision;
}

class Roofline final : public CostModel {
 public:
  explicit Roofline(const DeviceRates& rates) : rates_(rates), generation_(gpu_generation(rates)) {
    ensure(rates.memory_bandwidth_bytes_per_s > 0 && rates.fp32_flops > 0 &&
               rates.streaming_multiprocessors > 0,
           "a GPU has bandwidth, FLOP/s and multiprocessors");
  }

  Cost cost(const Operator& op) const override {
    const CostSource source = generation_.fitted ? CostSource::Fitted : CostSource::DataSheet;
    if (op.family == OperatorFamily::Memory)
      return {.seconds = kMemoryStart_s +
                         op.bytes / (bandwidth_share(op) * rates_.memory_bandwidth_bytes_per_s),
              .source = source,
              .relative_error = kMemoryError};
    const Precision precision = executed(rates_, op.precision);
    const double flops_per_s = peak_flops(rates_, precision);
    if (op.family == OperatorFamily::Attention)
      return {.seconds = attention_time_s(op, rates_, generation_, flops_per_s),
              .source = source,
              .relative_error = generation_.attention.relative_error};
    return gemm_cost(op, precision, flops_per_s);
  }

  double launch_s() const override { return kLaunch_s; }

  std::string description() const override {
    if (generation_.fitted)
      return std::string("operator costs: tile model fitted to published measurements of ") +
             generation_.name + ", at sustained clocks";
    return "operator costs: shares of the data sheet that measured GPUs reach; this GPU has no "
           "measurements of its own";
  }

 private:
  Cost gemm_cost(const Operator& op, Precision precision, double flops_per_s) const {
    Operator run = op;
    run.precision = precision;
    const bool fitted = generation_.fitted && precision != Precision::Fp32;
    const GpuGeneration& used = fitted ? generation_ : data_sheet_generation();
    return {.seconds = gemm_time_s(run, rates_, generation_, flops_per_s),
            .source = fitted ? CostSource::Fitted : CostSource::DataSheet,
            .relative_error = precision == Precision::Fp8 ? used.gemm_fp8.relative_error
                                                          : used.gemm.relative_error};
  }

  DeviceRates rates_;
  const GpuGeneration& generation_;
};

}  // namespace

const char* cost_source_name(CostSource source) {
  switch (source) {
    case CostSource::Measured:
      return "measured";
    case CostSource::Interpolated:
      return "interpolated";
    case CostSource::Fitted:
      return "fitted";
    case CostSource::Scaled:
      return "scaled";
    case CostSource::DataSheet:
      return "data sheet";
  }
  ensure(false, "every source of a cost has a name");
  return "";
}

double peak_flops(const DeviceRates& rates, Precision precision) {
  switch (precision) {
    case Precision::Fp32:
      return rates.fp32_flops;
    case Precision::Bf16:
      return rates.bf16_flops;
    case Precision::Fp16:
      return rates.fp16_flops;
    case Precision::Fp8:
      return rates.fp8_flops;
  }
  ensure(false, "every precision has a rate");
  return 0;
}

std::unique_ptr<CostModel> roofline_cost_model(const DeviceRates& rates) {
  return std::make_unique<Roofline>(rates);
}

}  // namespace rehearse
