#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/collective_curve.h"
#include "kernels/cost_model.h"
#include "kernels/gpu_generation.h"
#include "kernels/memory_overheads.h"
#include "kernels/operator.h"
#include "kernels/residual_map.h"

namespace rehearse {

// A profile: what the operators of one GPU with one software stack cost, fitted to measurements.
// The JSON format profile/1 (docs/profiles.md) holds exactly these structs.

/// How well a fit reproduces measurements. Errors are means of |predicted − measured| / measured.
/// Held-out errors are of samples that had no part in the fit: five folds, each left out once.
struct FitErrors {
  std::int64_t samples = 0;
  double fitted = 0;
  double held_out = 0;
  std::int64_t large_samples = 0;  ///< products: m, n, k ≥ 1,024; attention: over 100 GFLOP
  double held_out_large = 0;
};

/// How fast a pass other than the forward computes, relative to the forward's rate.
struct PassRate {
  double rate = 1;
  double spread = 0;  ///< half the distance of its 10th to its 90th percentile
  CostSource evidence = CostSource::DataSheet;
  std::string source;
};

/// Matrix products of one precision: `tiled_gemm_s`, corrected between the knots.
struct GemmFit {
  Precision precision = Precision::Bf16;
  GemmConstants constants;
  PassRate input_gradient, weight_gradient;
  ResidualMap residuals;  ///< over log2 of (m·batch, n, k)
  FitErrors errors;
};

/// Efficiency of the tensor cores in attention with one head size.
struct HeadSizeRate {
  int head_dim = 0;
  double efficiency = 0;
};

/// Causal flash attention of one precision: `attention_time_s` (attention_time.h), corrected
/// between the knots.
struct AttentionFit {
  Precision precision = Precision::Bf16;
  double start_s = 0;         ///< of everything that was timed
  double side_kernels_s = 0;  ///< the part of it that is a framework's small kernels beside it
  double tail_tiles = 0;      ///< of a row of key tiles: what unequal blocks leave idle at the end
  double wave_s = 0;          ///< overhead of each wave of query tiles
  double bandwidth = 1;       ///< share of the data-sheet memory bandwidth
  double sharpness = 2;       ///< of the smooth maximum of computing and moving
  std::vector<HeadSizeRate> head_sizes;  ///< ascending; at least one
  PassRate backward;                     ///< FLOPs are 2.5 times the forward's
  ResidualMap residuals;  ///< over log2 of (batch·heads, key length, heads a KV head, head size)
  FitErrors errors;
};

/// Operators bound by memory: t = start + bytes / (share · bandwidth), with the cached share up to
/// 0.6 of the L2 cache, the other from twice its size, and log-interpolated between.
struct MemoryFit {
  std::vector<std::string> operators;  ///< their names; a name with "/pass" means that pass only
  double start_s = 0;
  double cached_share = 1;
  double memory_share = 1;
  double relative_error = 0;
  CostSource evidence = CostSource::DataSheet;
  std::string source;
};

/// Share of the data-sheet bandwidth that an operator moving so many bytes reaches.
double memory_share(const MemoryFit& fit, double bytes, double l2_bytes);

/// An operator measured on this GPU: priced as measured, in any clock regime. Which fields of its
/// shape count follows from the family: m, n, k, batch; batch, query_len … causal; name and bytes.
/// The name of a product is ExpertUp where it is experts', in one grouped kernel, else Qkv.
struct ProfileSample {
  OperatorFamily family = OperatorFamily::Gemm;
  OperatorName name = OperatorName::Qkv;
  Pass pass = Pass::Forward;
  Precision precision = Precision::Bf16;
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  std::int64_t query_len = 0, key_len = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = false, accumulate_fp32 = false;
  double bytes = 0;
  double seconds = 0;
  double deviation = 0;  ///< of one execution from the next, relative; 0: not measured
};

/// A copy within the device's own memory.
struct CopyTime {
  double bytes = 0;  ///< read and written together
  double seconds = 0;
  bool operator==(const CopyTime&) const = default;
};

/// A factor with its source.
struct SourcedFactor {
  double value = 1;
  std::string source;
};

struct Profile {
  std::string gpu;    ///< catalogue id: "h100-sxm-80gb"
  std::string stack;  ///< "megatron"
  std::string made_by;
  std::vector<std::string> sources;  ///< tables it was fitted to, with their digests
  DeviceFacts device;                ///< rates of the data sheet that the constants refer to
  /// Rate of computing in a step that runs for minutes, relative to the short bursts measured.
  SourcedFactor sustained_rate{.value = 1, .source = "as measured"};
  /// Host time of issuing one operator.
  SourcedFactor launch_s{.value = 7.5e-6, .source = "eager PyTorch takes 5 to 10 us, assumed"};
  /// Time of a kernel beside a running collective, on the multiprocessors that it has left.
  SourcedFactor overlap_slowdown{.value = 1, .source = "assumed"};
  /// Memory beside tensors, as far as it was measured or is known.
  MemoryOverheads overheads;
  std::vector<GemmFit> gemm;
  /// Of experts' products, where their grouped kernel was measured; else `gemm` prices them.
  std::vector<GemmFit> expert_gemm;
  std::vector<AttentionFit> attention;
  std::vector<MemoryFit> memory;
  std::vector<ProfileSample> samples;
  /// Of several of these GPUs in one node. They stand for the GPU they were measured on alone.
  std::vector<CollectiveCurve> collectives;
  /// What operators bound by memory are compared with; prices do not depend on it.
  std::vector<CopyTime> copies;
};

/// Prices operators of `device` by the profile of the same GPU, or scales those of another: rates
/// go by the data sheets, corrections carry over within an architecture only, errors widen and the
/// source is `Scaled`. `Burst` prices short runs on a cool GPU, as tables are measured; steps run
/// `Sustained`. Safe to use from several threads; prices are kept by shape.
enum class ClockRegime : std::uint8_t { Sustained, Burst };
std::unique_ptr<CostModel> profile_cost_model(Profile profile, const DeviceFacts& device,
                                              ClockRegime clocks = ClockRegime::Sustained);

}  // namespace rehearse
