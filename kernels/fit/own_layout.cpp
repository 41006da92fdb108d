// The documented table of operators: a row an operator.
//   op         gemm, grouped_gemm (of `batch` experts), attention, or the name of an operator bound
//              by memory ("norm", "adam", …) or of one of its kinds (measured_labels.h)
//   pass       forward (default), input_gradient, weight_gradient, update
//   dtype      bf16 (default), fp16, fp8, fp32
//   m n k      of a product, batch (default 1); accumulate: 1 where it adds to an fp32 result
//   b s heads kv_heads head_dim    of attention; kv_len (default s), causal (default 1)
//   bytes      moved by an operator bound by memory; or, where op is context, matrix_workspace,
//              pair_communicator or communicator, the device memory that this takes (no time then);
//              or, where op is copy, read and written by a copy within the device's memory
//   mode       burst (default) or sustained;  gpu: catalogue id, rows of others are left out
//   time_us, time_ms or time_s

#include "kernels/fit/measured_labels.h"
#include "kernels/fit/operator_table.h"
#include "kernels/profile_tables.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

constexpr double kMostTime_s = 1e5;

class OwnRows {
 public:
  explicit OwnRows(SampleCollector& out) : out_(out), csv_(out.csv()) {}

  void read() {
    if (!find_time()) return;
    for (row_ = 0; row_ < csv_.row_count(); ++row_) read_row();
    if (not_priced_ > 0)
      out_.leave_out(std::to_string(not_priced_) +
                     " rows of operators that no step has by itself are left out");
    if (others_ > 0)
      out_.leave_out(std::to_string(others_) + " rows about other GPUs are left out");
  }

 private:
  bool find_time() {
    constexpr std::pair<const char*, double> kUnits[] = {
        {"time_us", 1e-6}, {"time_ms", 1e-3}, {"time_s", 1}};
    for (const auto& [name, unit] : kUnits) {
      const int column = csv_.column(name);
      if (column < 0) continue;
      if (time_ >= 0) {
        csv_.problem(csv_.header()[static_cast<std::size_t>(column)],
                     "times are given in two units", "keep one of the columns", out_.problems());
        return false;
      }
      time_ = column;
      unit_s_ = unit;
    }
    return true;
  }

  void read_row() {
    if (const int gpu = csv_.column("gpu"); gpu >= 0) {
      const std::string& name = csv_.cell(row_, gpu).text;
      const TableGpu* known = find_table_gpu(name);
      if (name != out_.device().gpu && !(known && known->gpu == out_.device().gpu)) {
        ++others_;
        return;
      }
    }
    const int op_column = csv_.column("op");
    if (StatedBytes* part = overhead_named(out_.overheads(), csv_.cell(row_, op_column).text)) {
      part->bytes = static_cast<double>(size("bytes"));
      part->source = "measured: " + out_.path().substr(out_.path().rfind('/') + 1);
      return;
    }
    const std::size_t before = out_.problems().count();
    if (csv_.cell(row_, op_column).text == "copy") {
      const auto bytes = static_cast<double>(size("bytes"));
      const auto seconds = time_of_row();
      if (seconds && out_.problems().count() == before)
        out_.add_copy({.bytes = bytes, .seconds = *seconds});
      return;
    }
    const auto label = measured_label(csv_.cell(row_, op_column).text);
    if (label && !label->priced_as) {
      ++not_priced_;
      return;
    }
    OperatorSample sample;
    sample.op = operator_of_row();
    sample.apart = label && label->apart;
    sample.sustained = choice("mode", mode_names(), false);
    const auto seconds = time_of_row();
    if (out_.problems().count() > before) return;
    sample.seconds = *seconds;
    out_.add(sample, csv_.cell(row_, time_), true);
  }

  std::optional<double> time_of_row() {
    const auto time =
        csv_.number(row_, time_, 1e-9 / unit_s_, kMostTime_s / unit_s_, out_.problems());
    if (!time) return std::nullopt;
    return *time * unit_s_;
  }

  Operator operator_of_row() {
    const CsvTable::Cell& kind = csv_.cell(row_, csv_.column("op"));
    const Pass pass = choice("pass", pass_names(), Pass::Forward);
    const Precision precision = choice("dtype", precision_names(), Precision::Bf16);
    if (kind.text == "gemm") {
      const bool accumulates = choice("accumulate", yes_names(), false);
      Operator op = batched_gemm(OperatorName::Qkv, pass, precision, size("batch", 1), size("m"),
                                 size("n"), size("k"));
      if (accumulates) op = gemm(op.name, pass, precision, op.m, op.n, op.k, true);
      return op;
    }
    if (kind.text == "grouped_gemm")
      return expert_gemm(pass, precision, size("batch", 1), size("m"), size("n"), size("k"),
                         choice("accumulate", yes_names(), false));
    if (kind.text == "attention") {
      const std::int64_t s = size("s");
      return attention(pass, precision, size("b", 1), s, size("kv_len", s), size("heads"),
                       size("kv_heads"), size("head_dim"), choice("causal", yes_names(), true));
    }
    if (const auto label = measured_label(kind.text))
      return memory_operator(*label->priced_as, pass, static_cast<double>(size("bytes")));
    csv_.problem(kind, "no operator is called \"" + kind.text + "\"",
                 "gemm, attention, an operator bound by memory such as norm or adam, or memory "
                 "beside tensors such as context",
                 out_.problems());
    return {};
  }

  /// A size of the row; reported where it is missing and has no default.
  std::int64_t size(const char* name, std::int64_t otherwise = 0) {
    const int column = csv_.column(name);
    if (column >= 0 && !(csv_.cell(row_, column).text.empty() && otherwise > 0))
      return csv_.whole(row_, column, out_.problems()).value_or(1);
    if (otherwise == 0 && missing_ != name) {
      missing_ = name;  // told once, not for each row
      csv_.problem(csv_.cell(row_, csv_.column("op")),
                   "the table has no column \"" + std::string(name) + "\", which " +
                       csv_.cell(row_, csv_.column("op")).text + " needs",
                   "", out_.problems());
    }
    return std::max<std::int64_t>(otherwise, 1);
  }

  template <class E>
  E choice(const char* name, const Names<E>& names, E otherwise) {
    const int column = csv_.column(name);
    if (column < 0) return otherwise;
    const CsvTable::Cell& cell = csv_.cell(row_, column);
    if (cell.text.empty()) return otherwise;
    std::string known;
    for (const auto& [spelling, value] : names) {
      if (spelling == cell.text) return value;
      known += (known.empty() ? "" : ", ") + spelling;
    }
    csv_.problem(cell, "\"" + cell.text + "\" is no " + std::string(name), "one of " + known,
                 out_.problems());
    return otherwise;
  }

  static const Names<bool>& yes_names() {
    static const Names<bool> names = {{"1", true}, {"0", false}, {"true", true}, {"false", false}};
    return names;
  }
  static const Names<bool>& mode_names() {
    static const Names<bool> names = {{"burst", false}, {"sustained", true}};
    return names;
  }

  SampleCollector& out_;
  const CsvTable& csv_;
  std::size_t row_ = 0, others_ = 0, not_priced_ = 0;
  int time_ = -1;
  double unit_s_ = 1;
  std::string missing_;
};

}  // namespace

void read_own_layout(SampleCollector& out) { OwnRows(out).read(); }

}  // namespace rehearse
