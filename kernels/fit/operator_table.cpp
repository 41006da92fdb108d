#include "kernels/fit/operator_table.h"

#include <cmath>
#include <cstdio>

#include "kernels/fit/measured_files.h"
#include "plan/digest.h"

namespace rehearse {
namespace {

struct Layout {
  const char* kind;
  std::vector<std::string> columns;  ///< that must all be there
  void (*read)(SampleCollector&);
};

/// The own layout first: it alone has a column time_….
const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {"operators", {"op", "time_us"}, read_own_layout},
      {"operators", {"op", "time_ms"}, read_own_layout},
      {"operators", {"op", "time_s"}, read_own_layout},
      {"products by GPU columns", {"m", "n", "k"}, read_product_columns},
      {"causal attention",
       {"gpu", "b", "s", "heads", "kv_heads", "head_dim", "us"},
       read_attention_rows},
      {"products and attention by layout",
       {"gpu", "op", "shape", "peak_tflops", "tflops"},
       read_layout_rows},
      {"attention forward and backward",
       {"gpu_name", "attn_mask", "batch_size", "q_seqlen", "kv_seqlen", "num_q_heads",
        "num_kv_heads", "head_dim_qk", "head_dim_vo", "data_type", "fwd_time_ms", "bwd_time_ms"},
       read_attention_passes},
      {"norms forward and backward",
       {"gpu_name", "norm_type", "backend", "data_type", "N", "C", "fwd_time_ms", "bwd_time_ms"},
       read_norm_passes},
      {"elementwise fp32", {"OPName", "Device", "B", "H", "us"}, read_elementwise_rows},
  };
  return all;
}

// Of the architecture white papers; Blackwell's assumed (the catalogue's).
constexpr double kAmpereL2 = 40e6, kHopperL2 = 50e6, kAdaL2 = 96e6, kBlackwellL2 = 126e6;

// Names that measured tables give to GPUs; bandwidths of the data sheets.
constexpr TableGpu kTableGpus[] = {
    {"a100_sxm80", "a100-sxm-80gb", 2.039e12, 80, kAmpereL2},
    {"a100_pcie", "a100-pcie-80gb", 1.935e12, 80, kAmpereL2},
    {"NVIDIA A100 80GB PCIe", "a100-pcie-80gb", 1.935e12, 80, kAmpereL2},
    {"NVIDIA A100-PCIE-40GB", "a100-pcie-40gb", 1.555e12, 80, kAmpereL2},
    {"h100_sxm", "h100-sxm-80gb", 3.35e12, 90, kHopperL2},
    {"h100_sxm_trt", "h100-sxm-80gb", 3.35e12, 90, kHopperL2},
    {"h200_sxm", "h200-sxm", 4.8e12, 90, kHopperL2},
    {"h200_sxm_trt", "h200-sxm", 4.8e12, 90, kHopperL2},
    {"h200_sxm_sgl", "h200-sxm", 4.8e12, 90, kHopperL2},
    {"NVIDIA H200", "h200-sxm", 4.8e12, 90, kHopperL2},
    {"b200_sxm", "b200-sxm", 8e12, 100, kBlackwellL2},
    {"gb200", "gb200", 8e12, 100, kBlackwellL2},
    {"l40s", "l40s", 0.864e12, 89, kAdaL2},
};

/// Tables round, and boost clocks vary: a tenth above the data sheet is still believed.
constexpr double kBelievedAboveSheet = 1.1;
/// Caches feed small operators faster than memory does; nothing reaches this.
constexpr double kMostCacheSpeed = 8;
/// Slower than this times the data sheet, plus a millisecond, is a time in another unit.
constexpr double kSlowest = 1000, kSlowest_s = 1e-3;

/// The least time the data sheet allows; 0 where it does not say.
double sheet_time_s(const Operator& op, const DeviceFacts& device) {
  if (op.family == OperatorFamily::Memory)
    return op.bytes / (device.memory_bandwidth_bytes_per_s * kMostCacheSpeed);
  const double peak = peak_flops(device, op.precision);
  return peak > 0 ? op.flops / (peak * kBelievedAboveSheet) : 0;
}

}  // namespace

const TableGpu* find_table_gpu(std::string_view spelling) {
  for (const TableGpu& gpu : kTableGpus)
    if (gpu.spelling == spelling || gpu.gpu == spelling) return &gpu;
  return nullptr;
}

std::string why_impossible(const OperatorSample& sample, const DeviceFacts& device) {
  const double least_s = sheet_time_s(sample.op, device);
  const double most_s = kSlowest * least_s + kSlowest_s +
                        kSlowest * sample.op.bytes / device.memory_bandwidth_bytes_per_s;
  if (sample.seconds < least_s)
    return "this is faster than the data sheet of " + device.gpu + " allows";
  if (sample.seconds > most_s)
    return "this is a thousand times slower than the data sheet of " + device.gpu;
  return "";
}

void SampleCollector::add(OperatorSample sample, const CsvTable::Cell& time, bool strict) {
  if (!sample.absolute) return out_.samples.push_back(sample);
  const std::string why = why_impossible(sample, device_);
  if (why.empty()) return out_.samples.push_back(sample);
  if (strict) {
    csv_.problem(time, why, "the column's name says its unit; all rows are in that unit",
                 problems_);
    return;
  }
  if (impossible_++ == 0) first_impossible_ = csv_.place(time);
}

void SampleCollector::finish() {
  if (impossible_ > 0)
    out_.notes.push_back(std::to_string(impossible_) +
                         " rows that the data sheet does not allow are left out, the first at " +
                         first_impossible_);
}

namespace {

std::optional<OperatorTable> read_json(std::string_view text, const std::string& path,
                                       const DeviceFacts& device, Problems& problems) {
  // Traces of a few steps; longer ones are refused with a sentence.
  constexpr JsonLimits kLimits{.bytes = std::size_t{1} << 30, .values = 60'000'000, .depth = 64};
  const JsonDocument document = parse_json(text, path, problems, kLimits);
  if (!document.parsed) return std::nullopt;
  const auto is_list = [&](const char* key) {
    const JsonValue* value = document.root.find(key);
    return value && value->is_list();
  };
  if (is_list("traceEvents")) return read_kernel_trace(document, device, problems);
  if (is_list("results")) return read_nccl_json(document, problems);
  problems.add(document.source.problem_at(
      0, "", "this JSON holds no measurements that are known here",
      "a trace of torch.profiler has \"traceEvents\", a file of nccl-tests \"results\""));
  return std::nullopt;
}

/// Measurements in another form than a table of comma-separated values; `other` is false for those.
std::optional<OperatorTable> read_other(std::string_view text, const std::string& path,
                                        const DeviceFacts& device, Problems& problems,
                                        bool& other) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && text[first] == '{';
  other = json || is_nccl_text(text);
  if (!other) return std::nullopt;
  auto table = json ? read_json(text, path, device, problems)
                    : read_nccl_text(SourceText(path, text), problems);
  if (table) table->digest = digest_text(text);
  return table;
}

}  // namespace

std::optional<OperatorTable> read_operator_table(std::string_view text, const std::string& path,
                                                 const DeviceFacts& device, Problems& problems) {
  const std::size_t before = problems.count();
  bool other = false;
  auto read = read_other(text, path, device, problems, other);
  if (other) return read;
  const auto csv = CsvTable::parse(text, path, problems);
  if (!csv) return std::nullopt;
  for (const Layout& layout : layouts()) {
    if (!csv->has_all(layout.columns)) continue;
    OperatorTable table{
        .path = path, .kind = layout.kind, .digest = digest_text(text), .samples = {}};
    SampleCollector collector(*csv, device, table, problems);
    layout.read(collector);
    collector.finish();
    if (problems.count() > before) return std::nullopt;
    return table;
  }
  csv->problem(csv->header().front(), "no table of operators has these columns",
               "a table of your own has op and one of time_us, time_ms, time_s, and the columns of "
               "each operator's shape",
               problems);
  return std::nullopt;
}

}  // namespace rehearse
