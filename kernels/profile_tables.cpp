#include "kernels/profile_tables.h"

#include <algorithm>

#include "plan/noun_tables.h"

namespace rehearse {
namespace {

constexpr Range kShare{1e-3, 10};
constexpr Range kError{0, 100};
constexpr Range kTime{0, 1e6};
constexpr Range kExtent{0, 1e15};

const FieldTable<FitErrors>& fit_errors_table() {
  static const FieldTable<FitErrors> table =
      FieldTable<FitErrors>("fit_errors", "How well a fit reproduces measurements")
          .integer("samples", &FitErrors::samples, kExtent, "measurements used")
          .number("fitted", &FitErrors::fitted, kError, "mean absolute error of those")
          .number("held_out", &FitErrors::held_out, kError,
                  "mean absolute error of measurements left out of the fit, over five folds")
          .integer("large_samples", &FitErrors::large_samples, kExtent,
                   "of them: products with m, n, k of at least 1,024, attention over 100 GFLOP")
          .number("held_out_large", &FitErrors::held_out_large, kError,
                  "mean absolute error of these when left out");
  return table;
}

const FieldTable<PassRate>& pass_rate_table() {
  static const FieldTable<PassRate> table =
      FieldTable<PassRate>("pass_rate", "How fast a pass computes, relative to the forward")
          .number("rate", &PassRate::rate, kShare, "rate over the forward's")
          .number("spread", &PassRate::spread, kError,
                  "half the distance of its 10th to its 90th percentile")
          .choice("evidence", &PassRate::evidence, cost_source_names(), "where it comes from")
          .text("source", &PassRate::source, "its source");
  return table;
}

const FieldTable<GemmConstants>& gemm_constants_table() {
  static const FieldTable<GemmConstants> table =
      FieldTable<GemmConstants>("gemm_constants", "Constants of the tile model of products")
          .number("start_s", &GemmConstants::start_s, kTime, "ramp-up and end of a kernel")
          .number("efficiency", &GemmConstants::efficiency, kShare, "of the tensor cores")
          .number("bandwidth", &GemmConstants::bandwidth, kShare, "share of the data sheet")
          .number("tile_s", &GemmConstants::tile_s, kTime, "prologue and epilogue of a wave")
          .number("intensity", &GemmConstants::intensity, {0, 1e6},
                  "tile intensity at which half the efficiency is reached")
          .number("sharpness", &GemmConstants::sharpness, {1, 100},
                  "of the smooth maximum of computing and moving")
          .number("split_s", &GemmConstants::split_s, kTime, "reduction of a product split along k")
          .number("scaling_s", &GemmConstants::scaling_s, {0, 1e-9},
                  "of kernels timed beside the product that scale an element of its left operand")
          .omit_default();
  return table;
}

const FieldTable<HeadSizeRate>& head_size_table() {
  static const FieldTable<HeadSizeRate> table =
      FieldTable<HeadSizeRate>("head_size", "Efficiency of attention with one head size")
          .integer("head_dim", &HeadSizeRate::head_dim, {1, 65536}, "head size")
          .required()
          .number("efficiency", &HeadSizeRate::efficiency, kShare, "of the tensor cores")
          .required();
  return table;
}

FieldTable<SourcedFactor> factor_table(const char* name, const char* help, const char* key,
                                       Range range, const char* what) {
  return FieldTable<SourcedFactor>(name, help)
      .number(key, &SourcedFactor::value, range, what)
      .required()
      .text("source", &SourcedFactor::source, "its source");
}

/// A table that adds lists of knots, which are rows of numbers rather than objects.
template <class Fit>
class KnottedTable : public FieldTable<Fit> {
 public:
  explicit KnottedTable(FieldTable<Fit> table) : FieldTable<Fit>(std::move(table)) {}
  KnottedTable knots(std::size_t shape, std::string example, std::string help) && {
    Field& field = this->fields_.emplace_back();
    field.key = "knots";
    field.kind = FieldKind::Free;
    field.help = std::move(help);
    field.example = std::move(example);
    field.default_note = "no corrections";
    field.read = [shape](const JsonValue& value, Reading& reading, void* object) {
      read_knots(value, reading, shape, static_cast<Fit*>(object)->residuals);
    };
    field.write = [shape](const void* object) {
      return knots_to_json(static_cast<const Fit*>(object)->residuals, shape);
    };
    return std::move(*this);
  }
};

void check_head_sizes(AttentionFit& fit, ObjectCheck& check) {
  for (std::size_t i = 1; i < fit.head_sizes.size(); ++i)
    if (fit.head_sizes[i - 1].head_dim >= fit.head_sizes[i].head_dim)
      check.problem("head_sizes", "head sizes are not in ascending order");
}

/// "norm" or "norm/forward".
bool names_operator(const std::string& text) {
  const std::size_t slash = text.find('/');
  const auto named = [](const auto& names, const std::string& name) {
    return std::any_of(names.begin(), names.end(),
                       [&](const auto& entry) { return entry.first == name; });
  };
  return named(operator_names(), text.substr(0, slash)) &&
         (slash == std::string::npos || named(pass_names(), text.substr(slash + 1)));
}

void check_operators(const MemoryFit& fit, ObjectCheck& check) {
  for (const std::string& text : fit.operators)
    if (!names_operator(text))
      check.problem("operators", "no operator is called " + json_quoted(text),
                    "write a name such as \"norm\" or \"norm/forward\"");
}

const Names<OperatorFamily>& family_names() {
  static const Names<OperatorFamily> names = {{"gemm", OperatorFamily::Gemm},
                                              {"attention", OperatorFamily::Attention},
                                              {"memory", OperatorFamily::Memory}};
  return names;
}

/// A shape without its sizes would match every operator that lacks them.
void check_sample(const ProfileSample& sample, ObjectCheck& check) {
  const auto need = [&](const char* key, double value) {
    if (value <= 0) check.problem(key, std::string("the sample has no ") + key);
  };
  if (sample.family == OperatorFamily::Gemm) {
    need("m", double(sample.m));
    need("n", double(sample.n));
    need("k", double(sample.k));
  } else if (sample.family == OperatorFamily::Attention) {
    need("query_len", double(sample.query_len));
    need("key_len", double(sample.key_len));
    need("heads", double(sample.heads));
    need("kv_heads", double(sample.kv_heads));
    need("head_dim", double(sample.head_dim));
  } else {
    need("bytes", sample.bytes);
  }
}

}  // namespace

const Names<CostSource>& cost_source_names() {
  static const Names<CostSource> names = [] {
    Names<CostSource> all;
    for (int i = 0; i < kCostSourceCount; ++i)
      all.emplace_back(cost_source_name(static_cast<CostSource>(i)), static_cast<CostSource>(i));
    return all;
  }();
  return names;
}

const Names<Pass>& pass_names() {
  static const Names<Pass> names = [] {
    Names<Pass> all;
    for (const Pass pass : {Pass::Forward, Pass::InputGradient, Pass::WeightGradient, Pass::Update})
      all.emplace_back(pass_name(pass), pass);
    return all;
  }();
  return names;
}

const FieldTable<DeviceFacts>& device_facts_table() {
  static const FieldTable<DeviceFacts> table =
      FieldTable<DeviceFacts>("device", "Data-sheet facts that the constants refer to")
          .quantity("fp32_flops", &DeviceFacts::fp32_flops, Dimension::FlopsPerSecond, {1e9, 1e18},
                    "outside tensor cores")
          .required()
          .quantity("bf16_flops", &DeviceFacts::bf16_flops, Dimension::FlopsPerSecond, {0, 1e18},
                    "dense, tensor cores")
          .required()
          .quantity("fp16_flops", &DeviceFacts::fp16_flops, Dimension::FlopsPerSecond, {0, 1e18},
                    "dense, tensor cores")
          .quantity("fp8_flops", &DeviceFacts::fp8_flops, Dimension::FlopsPerSecond, {0, 1e18},
                    "dense, tensor cores")
          .quantity("memory_bandwidth", &DeviceFacts::memory_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, {1e9, 1e15}, "of device memory")
          .required()
          .quantity("l2", &DeviceFacts::l2_bytes, Dimension::Bytes, {0, 1e12}, "of the L2 cache")
          .quantity("power", &DeviceFacts::power_w, Dimension::Watts, {0, 1e5}, "board limit")
          .integer<int>("streaming_multiprocessors", &DeviceFacts::streaming_multiprocessors,
                        {1, 10'000}, "multiprocessors")
          .required()
          .integer<int>("compute_capability", &DeviceFacts::compute_capability, {0, 1000},
                        "10 · major + minor");
  return table;
}

const FieldTable<SourcedFactor>& sustained_table() {
  static const FieldTable<SourcedFactor> table =
      factor_table("sustained_rate", "Clocks of a long step", "rate", {0.05, 2},
                   "rate of computing over the bursts measured");
  return table;
}

const FieldTable<SourcedFactor>& launch_table() {
  static const FieldTable<SourcedFactor> table =
      factor_table("launch", "Host work", "time_s", {0, 1}, "host time of issuing one operator");
  return table;
}

const FieldTable<SourcedFactor>& overlap_table() {
  static const FieldTable<SourcedFactor> table =
      factor_table("overlap", "Kernels beside a collective", "slowdown", {1, 10},
                   "their time over that on the same multiprocessors alone");
  return table;
}

const FieldTable<GemmFit>& gemm_fit_table() {
  static const KnottedTable<GemmFit> table =
      KnottedTable<GemmFit>(
          FieldTable<GemmFit>("gemm_fit", "Matrix products of one precision")
              .choice("precision", &GemmFit::precision, precision_names(), "of the operands")
              .required()
              .object("constants", &GemmFit::constants, gemm_constants_table(), "of the tile model")
              .required()
              .object("input_gradient", &GemmFit::input_gradient, pass_rate_table(),
                      "products for gradients of inputs")
              .object("weight_gradient", &GemmFit::weight_gradient, pass_rate_table(),
                      "products for gradients of weights, added in fp32")
              .object("errors", &GemmFit::errors, fit_errors_table(), "of this fit"))
          .knots(3, "[[4096, 8192, 1024, -0.03]]",
                 "corrections of the model: rows of m·batch, n, k and log(measured/modelled)");
  return table;
}

const FieldTable<AttentionFit>& attention_fit_table() {
  static const KnottedTable<AttentionFit> table =
      KnottedTable<AttentionFit>(
          FieldTable<AttentionFit>("attention_fit", "Flash attention of one precision")
              .choice("precision", &AttentionFit::precision, precision_names(), "of the operands")
              .required()
              .number("start_s", &AttentionFit::start_s, kTime, "of everything that was timed")
              .required()
              .number("side_kernels_s", &AttentionFit::side_kernels_s, kTime,
                      "part of start_s that is small kernels of a framework")
              .number("tail_tiles", &AttentionFit::tail_tiles, {0, 100},
                      "of a row of key tiles, idle at the end")
              .number("wave_s", &AttentionFit::wave_s, kTime, "overhead of each wave")
              .number("bandwidth", &AttentionFit::bandwidth, kShare, "share of the data sheet")
              .required()
              .number("sharpness", &AttentionFit::sharpness, {1, 100},
                      "of the smooth maximum of computing and moving")
              .objects("head_sizes", &AttentionFit::head_sizes, head_size_table(), {1, 100},
                       "efficiency by head size")
              .required()
              .object("backward", &AttentionFit::backward, pass_rate_table(), "of the backward")
              .object("errors", &AttentionFit::errors, fit_errors_table(), "of this fit")
              .check(check_head_sizes))
          .knots(4, "[[32, 4096, 8, 128, -0.03]]",
                 "corrections: rows of batch·heads, keys, heads a KV head, head size and "
                 "log(measured/modelled)");
  return table;
}

const Names<OperatorName>& operator_names() {
  static const Names<OperatorName> names = [] {
    Names<OperatorName> all;
    for (int i = 0; i < kOperatorNameCount; ++i)
      all.emplace_back(operator_name(static_cast<OperatorName>(i)), static_cast<OperatorName>(i));
    return all;
  }();
  return names;
}

const FieldTable<ProfileSample>& profile_sample_table() {
  static const FieldTable<ProfileSample> table =
      FieldTable<ProfileSample>("sample", "An operator priced as it was measured")
          .choice("family", &ProfileSample::family, family_names(), "which shape fields count")
          .required()
          .choice("operator", &ProfileSample::name, operator_names(),
                  "of memory operators; expert_up of experts' products")
          .omit_default()
          .choice("pass", &ProfileSample::pass, pass_names(), "forward or which backward")
          .omit_default()
          .choice("precision", &ProfileSample::precision, precision_names(), "of the operands")
          .omit_default()
          .integer("m", &ProfileSample::m, kExtent, "rows of a product")
          .omit_default()
          .integer("n", &ProfileSample::n, kExtent, "columns of a product")
          .omit_default()
          .integer("k", &ProfileSample::k, kExtent, "depth of a product")
          .omit_default()
          .integer("batch", &ProfileSample::batch, {1, 1e15}, "products or sequences")
          .omit_default()
          .integer("query_len", &ProfileSample::query_len, kExtent, "queries of attention")
          .omit_default()
          .integer("key_len", &ProfileSample::key_len, kExtent, "keys of attention")
          .omit_default()
          .integer("heads", &ProfileSample::heads, kExtent, "heads of attention")
          .omit_default()
          .integer("kv_heads", &ProfileSample::kv_heads, kExtent, "key and value heads")
          .omit_default()
          .integer("head_dim", &ProfileSample::head_dim, kExtent, "head size")
          .omit_default()
          .boolean("causal", &ProfileSample::causal, "attention below the diagonal")
          .omit_default()
          .boolean("accumulate_fp32", &ProfileSample::accumulate_fp32,
                   "a product added to an fp32 result")
          .omit_default()
          .number("bytes", &ProfileSample::bytes, {0, 1e18}, "traffic of a memory operator")
          .omit_default()
          .number("time_s", &ProfileSample::seconds, {1e-9, 1e6}, "measured time")
          .required()
          .number("deviation", &ProfileSample::deviation, {0, 10},
                  "of one execution from the next, relative: a standard deviation")
          .omit_default()
          .check(check_sample);
  return table;
}

const FieldTable<MemoryFit>& memory_fit_table() {
  static const FieldTable<MemoryFit> table =
      FieldTable<MemoryFit>("memory_fit", "Operators bound by memory")
          .texts("operators", &MemoryFit::operators, {1, 100},
                 "their names; \"norm/forward\" means one pass only")
          .required()
          .number("start_s", &MemoryFit::start_s, kTime, "start and end of the kernel")
          .number("cached_share", &MemoryFit::cached_share, kShare,
                  "of the data-sheet bandwidth, where all fits the L2 cache")
          .number("memory_share", &MemoryFit::memory_share, kShare,
                  "of the data-sheet bandwidth, beyond the cache")
          .required()
          .number("relative_error", &MemoryFit::relative_error, kError, "expected error")
          .choice("evidence", &MemoryFit::evidence, cost_source_names(), "where it comes from")
          .text("source", &MemoryFit::source, "its source")
          .check(check_operators);
  return table;
}

}  // namespace rehearse
