#include "kernels/fit/fit_memory.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/fit/shape_fit.h"
#include "kernels/fit/simplex_search.h"

namespace rehearse {
namespace {

/// Operators that one kind of kernel stands for, and what is taken where nothing was measured.
struct MemoryClass {
  OperatorName name;
  Pass pass;
  std::vector<std::string> operators;
  double share;
  double error;
  const char* source;
};

const std::vector<MemoryClass>& classes() {
  static const std::vector<MemoryClass> all = {
      {OperatorName::ResidualAdd,
       Pass::Forward,
       {"residual_add", "ffn_activation", "gradient_accumulate", "cast", "embedding",
        "gradient_norm", "adam", "qkv", "attention_output", "ffn_up", "ffn_down", "head"},
       0.86,
       0.15,
       "PyTorch's add, mul and GeLU on A100, NeuSight data set, commit 6945927d"},
      {OperatorName::Norm,
       Pass::Forward,
       {"norm/forward", "final_norm/forward"},
       0.72,
       0.15,
       "cuDNN's RMSNorm on H200: 0.67 to 0.80 of the data sheet"},
      {OperatorName::Norm,
       Pass::InputGradient,
       {"norm/input_gradient", "final_norm/input_gradient"},
       0.68,
       0.2,
       "cuDNN's RMSNorm on H200: 0.55 to 0.79 of the data sheet"},
      {OperatorName::CrossEntropy,
       Pass::Forward,
       {"cross_entropy", "attention"},
       0.69,
       0.2,
       "PyTorch's softmax on A100, NeuSight data set, commit 6945927d"},
      {OperatorName::Rope,
       Pass::Forward,
       {"rope"},
       0.45,
       0.25,
       "rotary positions on A100, Vidur data set, commit 7d475133"}};
  return all;
}

/// Small operators that stay in the cache run 20 to 40 % faster than from memory (NVIDIA TileGym,
/// request 126).
constexpr double kCacheGain = 1.3;
constexpr double kMemoryStart_s = 2e-6;
/// Kernels alone start and end in 1 to 3 µs; what tables show beyond is a framework's.
constexpr double kMostStart_s = 3e-6;
/// Regimes are fitted where so many samples lie in them.
constexpr std::size_t kLeastSamples = 4;

using Samples = std::vector<const OperatorSample*>;

/// Regimes follow the cache of the GPU that was measured.
double cache_of(const OperatorSample& sample, const DeviceFacts& device) {
  return sample.l2_bytes > 0 ? sample.l2_bytes : device.l2_bytes;
}

double mean_error(const Samples& samples, const MemoryFit& fit, const DeviceFacts& device) {
  double sum = 0;
  for (const OperatorSample* sample : samples) {
    const double share = memory_share(fit, sample->op.bytes, cache_of(*sample, device));
    const double seconds =
        fit.start_s + sample->op.bytes / (share * device.memory_bandwidth_bytes_per_s);
    sum += std::abs(std::log(sample->seconds / seconds));
  }
  return sum / static_cast<double>(samples.size());
}

MemoryFit fit_class(const Samples& samples, const DeviceFacts& device) {
  const auto cached = static_cast<std::size_t>(
      std::count_if(samples.begin(), samples.end(), [&](const OperatorSample* sample) {
        return sample->op.bytes <= 0.6 * cache_of(*sample, device);
      }));
  const bool fits_cached = cached >= kLeastSamples;
  const auto fit_at = [&](const std::vector<double>& x) {
    MemoryFit fit;
    fit.start_s = std::min(std::exp(x[0]), kMostStart_s);
    fit.memory_share = std::min(std::exp(x[1]), 1.0);
    fit.cached_share =
        fit.memory_share * (fits_cached ? std::clamp(std::exp(x[2]), 1.0, 4.0) : kCacheGain);
    return fit;
  };
  const auto error = [&](const std::vector<double>& x) {
    return mean_error(samples, fit_at(x), device);
  };
  MemoryFit fit =
      fit_at(simplex_search(error, {std::log(kMemoryStart_s), std::log(0.7), std::log(kCacheGain)},
                            {0.3, 0.1, 0.1}, 300));
  fit.start_s = rounded(fit.start_s);
  fit.memory_share = rounded(fit.memory_share);
  fit.cached_share = rounded(fit.cached_share);
  fit.relative_error = rounded(mean_error(samples, fit, device));
  return fit;
}

/// The samples of a kind, native ones alone where there are enough; `native` says which.
Samples samples_of(const std::vector<OperatorTable>& tables, OperatorName name, Pass pass,
                   bool& native, std::string& source) {
  Samples own, others;
  std::string own_tables, other_tables;
  for (const OperatorTable& table : tables) {
    const std::size_t before_own = own.size(), before_others = others.size();
    for (const OperatorSample& sample : table.samples)
      if (sample.op.family == OperatorFamily::Memory && sample.op.name == name &&
          sample.op.pass == pass && !sample.apart)
        (sample.native ? own : others).push_back(&sample);
    if (own.size() > before_own) own_tables += (own_tables.empty() ? "" : ", ") + table.kind;
    if (others.size() > before_others)
      other_tables += (other_tables.empty() ? "" : ", ") + table.kind;
  }
  native = own.size() >= kLeastSamples;
  const Samples& used = native ? own : others;
  source = std::to_string(used.size()) + " samples: " + (native ? own_tables : other_tables) +
           (native ? "" : ", of another architecture by bandwidth");
  return used;
}

/// Names and passes that own tables measured beyond the classes.
std::vector<std::pair<OperatorName, Pass>> other_kinds(const std::vector<OperatorTable>& tables) {
  std::map<std::pair<int, int>, std::size_t> counts;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& sample : table.samples)
      if (sample.op.family == OperatorFamily::Memory && !sample.apart)
        ++counts[{static_cast<int>(sample.op.name), static_cast<int>(sample.op.pass)}];
  std::vector<std::pair<OperatorName, Pass>> kinds;
  for (const auto& [kind, count] : counts) {
    const auto name = static_cast<OperatorName>(kind.first);
    const auto pass = static_cast<Pass>(kind.second);
    const bool is_class = std::any_of(
        classes().begin(), classes().end(),
        [&](const MemoryClass& known) { return known.name == name && known.pass == pass; });
    if (!is_class && count >= kLeastSamples) kinds.emplace_back(name, pass);
  }
  return kinds;
}

/// Whose price follows from a kind that own tables measured.
std::vector<std::string> priced_by(OperatorName name, Pass pass) {
  const auto with_pass = [&](OperatorName one) {
    return std::string(operator_name(one)) + "/" + pass_name(pass);
  };
  switch (name) {
    case OperatorName::TokenPermute:  // its gradients are the same two kernels
      return {operator_name(name)};
    case OperatorName::FfnActivation:
      return {with_pass(name), with_pass(OperatorName::ExpertActivation)};
    case OperatorName::Qkv:  // the gradient of a bias, which other products have as well
      return {with_pass(name), with_pass(OperatorName::AttentionOutput),
              with_pass(OperatorName::FfnUp), with_pass(OperatorName::FfnDown)};
    default:
      return {with_pass(name)};
  }
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

PassRate rate_of(const std::vector<double>& rates, const std::string& source) {
  return {.rate = rounded(quantile(rates, 0.5)),
          .spread = rounded((quantile(rates, 0.9) - quantile(rates, 0.1)) / 2),
          .evidence = CostSource::Fitted,
          .source = source};
}

}  // namespace

std::vector<MemoryFit> fit_memory(const std::vector<OperatorTable>& tables,
                                  const DeviceFacts& device) {
  std::vector<MemoryFit> fits;
  for (const MemoryClass& known : classes()) {
    bool native = false;
    std::string source;
    const Samples samples = samples_of(tables, known.name, known.pass, native, source);
    MemoryFit fit{.operators = {},
                  .start_s = kMemoryStart_s,
                  .cached_share = rounded(known.share * kCacheGain),
                  .memory_share = known.share,
                  .relative_error = known.error,
                  .evidence = CostSource::DataSheet,
                  .source = known.source};
    if (samples.size() >= kLeastSamples) {
      fit = fit_class(samples, device);
      fit.evidence = native ? CostSource::Fitted : CostSource::Scaled;
      // A share of bandwidth carries over to another architecture within about a tenth.
      if (!native) fit.relative_error = rounded(std::hypot(fit.relative_error, 0.1));
      fit.source = source;
    }
    fit.operators = known.operators;
    fits.push_back(fit);
  }
  for (const auto& [name, pass] : other_kinds(tables)) {
    bool native = false;
    std::string source;
    const Samples samples = samples_of(tables, name, pass, native, source);
    MemoryFit fit = fit_class(samples, device);
    fit.operators = priced_by(name, pass);
    fit.evidence = native ? CostSource::Fitted : CostSource::Scaled;
    fit.source = source;
    fits.push_back(fit);
  }
  return fits;
}

PassRate fit_product_pass(const std::vector<OperatorTable>& tables, const GemmFit& fit, Pass pass,
                          const DeviceFacts& device, bool of_experts) {
  // A pass is compared with the forwards of the same table, each against the model, so that a
  // table of a card with other clocks serves as well.
  std::vector<double> rates;
  std::string kinds;
  for (const OperatorTable& table : tables) {
    std::vector<double> forward, other;
    for (const OperatorSample& sample : table.samples) {
      if (sample.op.family != OperatorFamily::Gemm || sample.op.precision != fit.precision ||
          is_expert_gemm(sample.op) != of_experts || !sample.native ||
          (sample.op.pass != Pass::Forward && sample.op.pass != pass))
        continue;
      const double against = burst_time_s(sample.op, fit, device) / sample.seconds;
      (sample.op.pass == pass ? other : forward).push_back(against);
    }
    if (other.size() < kLeastSamples || forward.empty()) continue;
    const double level = quantile(forward, 0.5);
    for (const double against : other) rates.push_back(against / level);
    kinds += (kinds.empty() ? "" : ", ") + table.kind;
  }
  if (!rates.empty()) return rate_of(rates, std::to_string(rates.size()) + " samples: " + kinds);
  // Two architectures agree: 0.99 and 1.005 for gradients of inputs, 0.95 twice for those of
  // weights, with the spreads below.
  const bool blackwell = device.compute_capability >= 100;
  const char* source =
      "medians of SimuMax's tables (commit 4dcaae51) on B200 and A100: 144 and 61 gradients of "
      "inputs, 226 gradients of weights";
  const bool input = pass == Pass::InputGradient;
  return {.rate = input ? 0.995 : 0.95,
          .spread = input ? 0.11 : 0.12,
          .evidence = blackwell ? CostSource::Fitted : CostSource::Scaled,
          .source = source};
}

PassRate fit_attention_backward(const std::vector<OperatorTable>& tables) {
  std::vector<double> native, others;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& backward : table.samples) {
      if (backward.op.family != OperatorFamily::Attention ||
          backward.op.pass != Pass::InputGradient)
        continue;
      for (const OperatorSample& forward : table.samples) {
        const Operator& a = forward.op;
        const Operator& b = backward.op;
        if (a.family != b.family || a.pass != Pass::Forward || a.batch != b.batch ||
            a.query_len != b.query_len || a.key_len != b.key_len || a.heads != b.heads ||
            a.kv_heads != b.kv_heads || a.head_dim != b.head_dim)
          continue;
        (backward.native ? native : others).push_back(2.5 * forward.seconds / backward.seconds);
        break;
      }
    }
  if (native.size() >= kLeastSamples)
    return rate_of(native, std::to_string(native.size()) + " pairs of forward and backward");
  if (others.size() >= kLeastSamples) {
    PassRate rate = rate_of(others, std::to_string(others.size()) +
                                        " pairs of forward and backward on another architecture");
    rate.evidence = CostSource::Scaled;
    return rate;
  }
  return {.rate = 0.84,
          .spread = 0.1,
          .evidence = CostSource::Scaled,
          .source =
              "cuDNN 9.19 on H200, causal bf16: 2.98 times the forward (cudnn-frontend "
              "3929da2e)"};
}

SourcedFactor fit_sustained_rate(const std::vector<OperatorTable>& tables,
                                 const DeviceFacts& device) {
  // Only products that compute for long enough to warm up say something.
  std::map<std::pair<std::vector<std::int64_t>, Precision>, std::pair<double, double>> both;
  bool only_sustained = true;
  for (const OperatorTable& table : tables)
    for (const OperatorSample& sample : table.samples) {
      const Operator& op = sample.op;
      if (op.family != OperatorFamily::Gemm || op.pass != Pass::Forward || !sample.absolute)
        continue;
      only_sustained = only_sustained && sample.sustained;
      if (std::min({op.m, op.n, op.k}) < 1024) continue;
      auto& [burst, sustained] = both[{{op.m, op.n, op.k, op.batch}, op.precision}];
      (sample.sustained ? sustained : burst) = sample.seconds;
    }
  std::vector<double> ratios;
  for (const auto& [shape, times] : both)
    if (times.first > 0 && times.second > 0) ratios.push_back(times.first / times.second);
  if (ratios.size() >= kLeastSamples)
    return {.value = rounded(quantile(ratios, 0.5)),
            .source = std::to_string(ratios.size()) + " products measured in both modes"};
  if (only_sustained && !both.empty()) return {.value = 1, .source = "measured sustained"};
  return {.value = gpu_generation(device).sustained,
          .source =
              "of the generation: A100 judged from long and short products, Hopper and "
              "Blackwell fitted to published training steps"};
}

}  // namespace rehearse
