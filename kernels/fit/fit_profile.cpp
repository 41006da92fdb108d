#include "kernels/fit/fit_profile.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/fit/fit_memory.h"
#include "kernels/price_cache.h"

namespace rehearse {
namespace {

/// Fewer measured shapes than constants and knots need say nothing.
constexpr std::size_t kLeastShapes = 30;
/// Attention has seven constants with two head sizes. A profile of a CPU measures a dozen shapes,
/// and what GPUs reach says nothing about that.
constexpr std::size_t kLeastAttentions = 10;
constexpr Precision kPrecisions[] = {Precision::Bf16, Precision::Fp16, Precision::Fp8,
                                     Precision::Fp32};

/// The sustained measurement of a shape where there is one, since steps run sustained.
std::vector<ProfileSample> exact_samples(const std::vector<OperatorTable>& tables) {
  struct Best {
    Operator op;
    double seconds = 0;
    bool sustained = false;
  };
  std::map<std::array<std::int64_t, 12>, Best> best;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& sample : table.samples) {
      if (!sample.native || !sample.absolute) continue;
      Best& known = best[sample_key(sample.op).words];
      if (known.seconds > 0 && (known.sustained || !sample.sustained)) continue;
      known = {.op = sample.op, .seconds = sample.seconds, .sustained = sample.sustained};
    }
  std::vector<ProfileSample> samples;
  for (const auto& [key, known] : best) samples.push_back(profile_sample(known.op, known.seconds));
  return samples;
}

std::string file_name(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

ProfileSample profile_sample(const Operator& op, double seconds) {
  return {.family = op.family,
          .name = op.family == OperatorFamily::Memory ? op.name
                  : is_expert_gemm(op)                ? OperatorName::ExpertUp
                                                      : OperatorName::Qkv,
          .pass = op.pass,
          .precision = op.family == OperatorFamily::Memory ? Precision::Bf16 : op.precision,
          .m = op.m,
          .n = op.n,
          .k = op.k,
          .batch = std::max<std::int64_t>(op.batch, 1),
          .query_len = op.query_len,
          .key_len = op.key_len,
          .heads = op.heads,
          .kv_heads = op.kv_heads,
          .head_dim = op.head_dim,
          .causal = op.causal,
          .accumulate_fp32 = op.accumulate_fp32,
          .bytes = op.family == OperatorFamily::Memory ? op.bytes : 0,
          .seconds = seconds};
}

Profile fit_profile(const std::vector<OperatorTable>& tables, const FitRequest& request) {
  Profile profile;
  profile.gpu = request.device.gpu;
  profile.stack = request.stack;
  profile.made_by = request.made_by;
  profile.device = request.device;
  for (const OperatorTable& table : tables)
    profile.sources.push_back(file_name(table.path) + " (" + table.kind + ", " +
                              std::to_string(table.samples.size()) + " samples, digest " +
                              table.digest + ")");
  for (const Precision precision : kPrecisions) {
    if (peak_flops(request.device, precision) <= 0) continue;
    for (const bool of_experts : {false, true}) {
      const auto products = forward_samples(tables, OperatorFamily::Gemm, precision, of_experts);
      if (products.size() < kLeastShapes) continue;
      GemmFit fit = fit_gemm(products, precision, request.device, request.options);
      const auto pass_rate = [&](Pass pass) {
        return fit_product_pass(tables, fit, pass, request.device, of_experts);
      };
      fit.input_gradient = pass_rate(Pass::InputGradient);
      fit.weight_gradient = pass_rate(Pass::WeightGradient);
      (of_experts ? profile.expert_gemm : profile.gemm).push_back(std::move(fit));
    }
    const auto attentions = forward_samples(tables, OperatorFamily::Attention, precision);
    if (attentions.size() >= kLeastAttentions) {
      AttentionFit fit = fit_attention(attentions, precision, request.device, request.options);
      fit.backward = fit_attention_backward(tables);
      profile.attention.push_back(std::move(fit));
    }
  }
  profile.memory = fit_memory(tables, request.device);
  profile.sustained_rate =
      request.sustained_rate > 0
          ? SourcedFactor{.value = request.sustained_rate, .source = "given by hand"}
          : fit_sustained_rate(tables, request.device);
  for (const OperatorTable& table : tables)
    profile.collectives.insert(profile.collectives.end(), table.collectives.begin(),
                               table.collectives.end());
  for (const OperatorTable& table : tables)
    profile.copies.insert(profile.copies.end(), table.copies.begin(), table.copies.end());
  for (const OperatorTable& table : tables)
    profile.overheads = larger_of(profile.overheads, table.overheads);
  if (request.keep_samples) profile.samples = exact_samples(tables);
  for (FitErrors* errors : [&] {
         std::vector<FitErrors*> all;
         for (GemmFit& fit : profile.gemm) all.push_back(&fit.errors);
         for (GemmFit& fit : profile.expert_gemm) all.push_back(&fit.errors);
         for (AttentionFit& fit : profile.attention) all.push_back(&fit.errors);
         return all;
       }()) {
    errors->fitted = rounded(errors->fitted);
    errors->held_out = rounded(errors->held_out);
    errors->held_out_large = rounded(errors->held_out_large);
  }
  return profile;
}

}  // namespace rehearse
