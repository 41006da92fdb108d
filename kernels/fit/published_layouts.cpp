// Layouts of published tables, by their columns. Origins and licences stand beside the tables;
// docs/profiles.md says which profiles were fitted to which.

#include <algorithm>
#include <map>

#include "kernels/fit/operator_table.h"

namespace rehearse {
namespace {

constexpr double kMicro = 1e-6, kMilli = 1e-3;
constexpr double kMostMicroseconds = 1e9;

bool is_device(const TableGpu* gpu, const DeviceFacts& device) {
  return gpu && gpu->gpu == device.gpu;
}
bool is_architecture(const TableGpu* gpu, const DeviceFacts& device) {
  return gpu && gpu->compute_capability == device.compute_capability;
}

/// Precision in the file's name, since these tables have no column for it.
std::optional<Precision> precision_in(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.find("bf16") != std::string::npos) return Precision::Bf16;
  if (name.find("fp16") != std::string::npos) return Precision::Fp16;
  if (name.find("fp8") != std::string::npos) return Precision::Fp8;
  if (name.find("fp32") != std::string::npos) return Precision::Fp32;
  return std::nullopt;
}

/// "b=1;m=4096;layout=TN" as its parts.
std::map<std::string, std::string> shape_parts(const std::string& text) {
  std::map<std::string, std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (const std::size_t equals = part.find('='); equals != std::string::npos)
      parts[part.substr(0, equals)] = part.substr(equals + 1);
    begin = end + 1;
  }
  return parts;
}

std::int64_t size_of(const std::map<std::string, std::string>& parts, const char* key) {
  const auto at = parts.find(key);
  if (at == parts.end()) return 0;
  return static_cast<std::int64_t>(parse_number(at->second).value_or(0));
}

/// One measured product or attention kernel of the layout table; empty family Memory: neither.
Operator layout_operator(const std::string& kind, const std::map<std::string, std::string>& shape) {
  const bool matmul = kind == "matmul";
  const auto text = [&](const char* key) {
    const auto at = shape.find(key);
    return at == shape.end() ? std::string() : at->second;
  };
  if (matmul && size_of(shape, "b") == 1) {
    const std::string layout = text("layout");
    const Pass pass = layout == "NN"   ? Pass::InputGradient
                      : layout == "NT" ? Pass::WeightGradient
                                       : Pass::Forward;
    return gemm(OperatorName::Qkv, pass, Precision::Bf16, size_of(shape, "m"), size_of(shape, "n"),
                size_of(shape, "k"), text("out_dtype") == "fp32");
  }
  if (kind == "sdp_fwd" || kind == "sdp_bwd") {
    const std::int64_t s = size_of(shape, "seq_len");
    return attention(kind == "sdp_fwd" ? Pass::Forward : Pass::InputGradient, Precision::Bf16,
                     size_of(shape, "batch"), s, s, size_of(shape, "head_num"),
                     size_of(shape, "kv_head_num"), size_of(shape, "qk_head_dim"), true);
  }
  return memory_operator(OperatorName::Cast, Pass::Forward, 0);
}

}  // namespace

void read_product_columns(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  const auto precision = precision_in(csv.source().file());
  std::vector<int> times;
  for (std::size_t i = 0; i < csv.header().size(); ++i) {
    const std::string& name = csv.header()[i].text;
    if (name.size() < 4 || name.substr(name.size() - 3) != "_us") continue;
    if (is_device(find_table_gpu(name.substr(0, name.size() - 3)), out.device()))
      times.push_back(static_cast<int>(i));
  }
  if (!precision)
    csv.problem(csv.header().front(), "nothing says which precision these products have",
                "put bf16, fp16, fp8 or fp32 into the file's name", out.problems());
  if (times.empty())
    csv.problem(csv.header().front(), "no column ending in _us is of " + out.device().gpu, "",
                out.problems());
  if (!precision || times.empty()) return;

  const int m = csv.column("m"), n = csv.column("n"), k = csv.column("k");
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    const auto rows = csv.whole(row, m, out.problems()),
               columns = csv.whole(row, n, out.problems()),
               depth = csv.whole(row, k, out.problems());
    for (const int time : times) {
      if (csv.cell(row, time).text.empty()) continue;
      const auto us = csv.number(row, time, 1e-3, kMostMicroseconds, out.problems());
      if (!us || !rows || !columns || !depth) continue;
      OperatorSample sample;
      sample.op = gemm(OperatorName::Qkv, Pass::Forward, *precision, *rows, *columns, *depth);
      sample.seconds = *us * kMicro;
      out.add(sample, csv.cell(row, time), false);
    }
  }
}

void read_attention_rows(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  const int gpu = csv.column("gpu"), time = csv.column("us");
  const int shape[] = {csv.column("b"), csv.column("s"), csv.column("heads"),
                       csv.column("kv_heads"), csv.column("head_dim")};
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    if (!is_device(find_table_gpu(csv.cell(row, gpu).text), out.device())) continue;
    std::int64_t size[5];
    bool good = true;
    for (int i = 0; i < 5; ++i) {
      const auto value = csv.whole(row, shape[i], out.problems());
      good = good && value.has_value();
      size[i] = value.value_or(1);
    }
    const auto us = csv.number(row, time, 1e-3, kMostMicroseconds, out.problems());
    if (!us || !good) continue;
    OperatorSample sample;
    sample.op = attention(Pass::Forward, Precision::Bf16, size[0], size[1], size[1], size[2],
                          size[3], size[4], true);
    sample.seconds = *us * kMicro;
    out.add(sample, csv.cell(row, time), false);
  }
}

// Efficiencies of other cards of an architecture, from which ratios between passes are taken.
// Attention is counted over the whole square there, products as usual.
void read_layout_rows(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  const int gpu = csv.column("gpu"), kind = csv.column("op"), shape = csv.column("shape"),
            rate = csv.column("tflops");
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    if (!is_architecture(find_table_gpu(csv.cell(row, gpu).text), out.device())) continue;
    OperatorSample sample;
    sample.op = layout_operator(csv.cell(row, kind).text, shape_parts(csv.cell(row, shape).text));
    if (sample.op.family == OperatorFamily::Memory || sample.op.flops <= 0) continue;
    const auto tflops = csv.number(row, rate, 1e-3, 1e6, out.problems());
    if (!tflops) continue;
    sample.seconds = sample.op.flops / (*tflops * 1e12);
    sample.absolute = false;
    out.add(sample, csv.cell(row, rate), false);
  }
}

void read_attention_passes(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  const auto column = [&](const char* name) { return csv.column(name); };
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    const TableGpu* gpu = find_table_gpu(csv.cell(row, column("gpu_name")).text);
    const std::string& type = csv.cell(row, column("data_type")).text;
    const std::string& mask = csv.cell(row, column("attn_mask")).text;
    const std::string& size = csv.cell(row, column("head_dim_qk")).text;
    // Windows make some rows shorter than their shape says, and unequal head sizes are no plain
    // attention.
    const int window = column("sliding_window_size");
    const bool plain = size == csv.cell(row, column("head_dim_vo")).text &&
                       (window < 0 || csv.cell(row, window).text.empty());
    if (!gpu || type != "bfloat16" || mask != "top_left" || !plain) continue;
    const auto number = [&](const char* name) {
      return csv.whole(row, column(name), out.problems()).value_or(1);
    };
    for (const Pass pass : {Pass::Forward, Pass::InputGradient}) {
      const int time = column(pass == Pass::Forward ? "fwd_time_ms" : "bwd_time_ms");
      const auto ms = csv.number(row, time, 1e-6, 1e6, out.problems());
      if (!ms) continue;
      OperatorSample sample;
      sample.op = attention(pass, Precision::Bf16, number("batch_size"), number("q_seqlen"),
                            number("kv_seqlen"), number("num_q_heads"), number("num_kv_heads"),
                            number("head_dim_qk"), true);
      sample.seconds = *ms * kMilli;
      sample.native = is_architecture(gpu, out.device());
      sample.absolute = false;  // another kernel than the profile's forward
      out.add(sample, csv.cell(row, time), false);
    }
  }
}

void read_norm_passes(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  const auto column = [&](const char* name) { return csv.column(name); };
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    const TableGpu* gpu = find_table_gpu(csv.cell(row, column("gpu_name")).text);
    // Fused kernels are what training frameworks run; eager PyTorch is up to twice as slow.
    if (!gpu || csv.cell(row, column("backend")).text != "cudnn" ||
        csv.cell(row, column("data_type")).text != "bfloat16")
      continue;
    const auto rows = csv.whole(row, column("N"), out.problems());
    const auto width = csv.whole(row, column("C"), out.problems());
    if (!rows || !width) continue;
    const double elements = static_cast<double>(*rows) * static_cast<double>(*width);
    for (const Pass pass : {Pass::Forward, Pass::InputGradient}) {
      const int time = column(pass == Pass::Forward ? "fwd_time_ms" : "bwd_time_ms");
      const auto ms = csv.number(row, time, 1e-6, 1e6, out.problems());
      if (!ms) continue;
      OperatorSample sample;
      sample.op =
          memory_operator(OperatorName::Norm, pass, (pass == Pass::Forward ? 4 : 6) * elements);
      sample.native = is_architecture(gpu, out.device());
      sample.l2_bytes = gpu->l2_bytes;
      sample.seconds = *ms * kMilli * gpu->memory_bandwidth_bytes_per_s /
                       out.device().memory_bandwidth_bytes_per_s;
      out.add(sample, csv.cell(row, time), false);
    }
  }
}

void read_elementwise_rows(SampleCollector& out) {
  const CsvTable& csv = out.csv();
  // Tensors of B·H fp32 elements that each operator reads and writes.
  static const std::map<std::string, std::pair<OperatorName, int>> kOperators = {
      {"add", {OperatorName::ResidualAdd, 3}},     {"mul", {OperatorName::ResidualAdd, 3}},
      {"addu", {OperatorName::ResidualAdd, 2}},    {"mulu", {OperatorName::ResidualAdd, 2}},
      {"gelu", {OperatorName::ResidualAdd, 2}},    {"relu", {OperatorName::ResidualAdd, 2}},
      {"tanh", {OperatorName::ResidualAdd, 2}},    {"ln", {OperatorName::Norm, 2}},
      {"softmax", {OperatorName::CrossEntropy, 2}}};
  const int name = csv.column("OPName"), device = csv.column("Device"), rows = csv.column("B"),
            width = csv.column("H"), time = csv.column("us");
  for (std::size_t row = 0; row < csv.row_count(); ++row) {
    const auto at = kOperators.find(csv.cell(row, name).text);
    const TableGpu* gpu = find_table_gpu(csv.cell(row, device).text);
    if (at == kOperators.end() || !gpu) continue;
    const auto count = csv.whole(row, rows, out.problems());
    const auto each = csv.whole(row, width, out.problems());
    const auto us = csv.number(row, time, 1e-3, kMostMicroseconds, out.problems());
    if (!count || !each || !us) continue;
    OperatorSample sample;
    sample.op = memory_operator(
        at->second.first, Pass::Forward,
        4.0 * at->second.second * static_cast<double>(*count) * static_cast<double>(*each));
    sample.native = is_architecture(gpu, out.device());
    sample.l2_bytes = gpu->l2_bytes;
    sample.seconds = *us * kMicro * gpu->memory_bandwidth_bytes_per_s /
                     out.device().memory_bandwidth_bytes_per_s;
    out.add(sample, csv.cell(row, time), false);
  }
}

}  // namespace rehearse
