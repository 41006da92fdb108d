#include "kernels/profiler/floors.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

#include "kernels/fit/csv_table.h"

namespace rehearse {
namespace {

constexpr double kLargeBytes = 64.0 * (1 << 20);
constexpr double kLeastShare = 75, kLeastAdamShare = 80;  // percent of copies

using Kind = std::tuple<std::string, std::string, std::string>;
Kind kind_of(const MeasuredRow& row) { return {row.op, row.pass, row.dtype}; }

bool is_copy(const MeasuredRow& row) { return row.op == "copy"; }
/// Products of any kind: what says how fast the device computes.
bool is_product(const MeasuredRow& row) { return row.op == "gemm"; }

/// Cells of one row by the names of their columns; 0 or nothing where there is no such column.
class Row {
 public:
  Row(const CsvTable& csv, std::size_t row) : csv_(csv), row_(row) {}
  std::string text(const char* name) const {
    const int column = csv_.column(name);
    return column < 0 ? "" : csv_.cell(row_, column).text;
  }
  double number(const char* name) const { return parse_number(text(name)).value_or(0); }

 private:
  const CsvTable& csv_;
  std::size_t row_;
};

MeasuredRow measured_row(const Row& row) {
  MeasuredRow result{.op = row.text("op"),
                     .pass = row.text("pass"),
                     .dtype = row.text("dtype"),
                     .seconds = row.number("time_us") * 1e-6,
                     .bytes = row.number("bytes"),
                     .flops = row.number("flops"),
                     .bound_by_memory = !row.text("bytes").empty(),
                     .causal = row.text("causal") == "1",
                     .query_len = row.number("s"),
                     .key_len = row.number("kv_len"),
                     .head_dim = row.number("head_dim")};
  if (!result.bound_by_memory) result.bytes = row.number("least_bytes");
  return result;
}

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::optional<std::vector<MeasuredRow>> read_measured_rows(std::string_view text,
                                                           const std::string& path,
                                                           Problems& problems) {
  const auto csv = CsvTable::parse(text, path, problems);
  if (!csv) return std::nullopt;
  if (!csv->has_all({"op", "pass", "dtype", "bytes", "mode", "time_us"})) {
    csv->problem(csv->header().front(), "this is no table that a profile was made with",
                 "rehearse-device profile writes one beside the profile", problems);
    return std::nullopt;
  }
  std::vector<MeasuredRow> rows;
  for (std::size_t i = 0; i < csv->row_count(); ++i) {
    const Row row(*csv, i);
    // Rows of memory beside tensors have no time.
    if (row.text("mode") != "burst" || row.number("time_us") <= 0) continue;
    rows.push_back(measured_row(row));
  }
  return rows;
}

namespace {

/// Of the largest copy, which caches serve least.
double copy_rate(const std::vector<MeasuredRow>& rows) {
  const MeasuredRow* largest = nullptr;
  for (const MeasuredRow& row : rows)
    if (is_copy(row) && row.bytes >= kLargeBytes && (!largest || row.bytes > largest->bytes))
      largest = &row;
  return largest ? largest->bytes / largest->seconds : 0;
}

std::vector<OperatorFloor> floors_by_kind(const std::vector<MeasuredRow>& rows, double copies) {
  std::map<std::string, double> fastest;  // FLOP/s of each type's products
  for (const MeasuredRow& row : rows)
    if (is_product(row)) fastest[row.dtype] = std::max(fastest[row.dtype], row.flops / row.seconds);
  std::map<Kind, const MeasuredRow*> largest;
  for (const MeasuredRow& row : rows) {
    if (is_copy(row)) continue;
    const MeasuredRow*& known = largest[kind_of(row)];
    const double size = row.bound_by_memory ? row.bytes : row.flops;
    if (!known || size > (row.bound_by_memory ? known->bytes : known->flops)) known = &row;
  }
  std::vector<OperatorFloor> floors;
  for (const auto& [kind, row] : largest) {
    const double moving_s = copies > 0 ? row->bytes / copies : 0;
    const double rate = fastest[row->dtype];
    const double computing_s = row->bound_by_memory || rate <= 0 ? 0 : row->flops / rate;
    floors.push_back({.largest = *row, .floor_s = std::max(moving_s, computing_s)});
  }
  return floors;
}

/// One for each kind that was measured at 64 MiB or more. Adam's is there in any case.
void add_memory_bars(const std::vector<MeasuredRow>& rows, double copies, std::vector<Bar>& bars) {
  std::map<Kind, double> worst;
  for (const MeasuredRow& row : rows) {
    if (!row.bound_by_memory || is_copy(row) || row.bytes < kLargeBytes) continue;
    const double rate = row.bytes / row.seconds;
    const auto [known, is_new] = worst.emplace(kind_of(row), rate);
    if (!is_new) known->second = std::min(known->second, rate);
  }
  bool adam = false;
  for (const auto& [kind, rate] : worst) {
    const auto& [op, pass, dtype] = kind;
    adam = adam || op == "adam";
    Bar bar{.what = op + " " + pass + " " + dtype + ", 64 MiB and more",
            .unit = "% of copies",
            .least = op == "adam" ? kLeastAdamShare : kLeastShare,
            .measured = {}};
    if (copies > 0) bar.measured = 100 * rate / copies;
    bars.push_back(std::move(bar));
  }
  if (worst.empty())
    bars.push_back({.what = "operators bound by memory, 64 MiB and more",
                    .unit = "% of copies",
                    .least = kLeastShare,
                    .measured = {}});
  if (!adam)
    bars.push_back({.what = "adam, 64 MiB and more",
                    .unit = "% of copies",
                    .least = kLeastAdamShare,
                    .measured = {}});
}

void add_attention_bar(const std::vector<MeasuredRow>& rows, const char* pass, double least,
                       double goal, std::vector<Bar>& bars) {
  constexpr double kLength = 8192, kHead = 128;
  Bar bar{.what = std::string("attention ") + pass + " bf16, 8,192 causal, head size 128",
          .unit = "TFLOP/s",
          .least = least,
          .goal = goal,
          .measured = {}};
  for (const MeasuredRow& row : rows) {
    if (row.op != "attention" || row.pass != pass || row.dtype != "bf16" || !row.causal ||
        row.query_len != kLength || row.key_len != kLength || row.head_dim != kHead)
      continue;
    const double rate = row.flops / row.seconds * 1e-12;
    bar.measured = bar.measured ? std::min(*bar.measured, rate) : rate;
  }
  bars.push_back(std::move(bar));
}

std::string verdict(const Bar& bar) {
  if (!bar.measured) return "NOT MEASURED";
  if (!bar.passes()) return "FAIL";
  return bar.goal > bar.least && *bar.measured < bar.goal ? "pass, short of the goal" : "pass";
}

std::string floor_line(const OperatorFloor& floor) {
  const MeasuredRow& row = floor.largest;
  const std::string work = row.bound_by_memory ? formatted("%.4g MB", row.bytes * 1e-6)
                                               : formatted("%.4g GFLOP", row.flops * 1e-9);
  return "| " + row.op + " | " + row.pass + " | " + row.dtype + " | " + work + " | " +
         formatted("%.1f us", floor.floor_s * 1e6) + " | " +
         formatted("%.1f us", row.seconds * 1e6) + " | " +
         formatted("%.0f %%", 100 * floor.floor_s / row.seconds) + " |\n";
}

}  // namespace

bool FloorReport::passes() const {
  return std::all_of(bars.begin(), bars.end(), [](const Bar& bar) { return bar.passes(); });
}

FloorReport floors_of(const std::vector<MeasuredRow>& rows) {
  FloorReport report;
  report.copy_bytes_per_s = copy_rate(rows);
  report.floors = floors_by_kind(rows, report.copy_bytes_per_s);
  add_attention_bar(rows, "forward", 200, 300, report.bars);
  add_attention_bar(rows, "input_gradient", 120, 200, report.bars);
  add_memory_bars(rows, report.copy_bytes_per_s, report.bars);
  return report;
}

std::string floors_text(const FloorReport& report) {
  std::string text = report.copy_bytes_per_s > 0
                         ? "Copies: " + formatted("%.0f GB/s", report.copy_bytes_per_s * 1e-9)
                         : "Copies of 64 MiB and more were not measured";
  text += ". The largest of each kind:\n\n";
  text += "| operator | pass | type | moved or computed | floor | time | of the floor |\n";
  text += "|---|---|---|---|---|---|---|\n";
  for (const OperatorFloor& floor : report.floors) text += floor_line(floor);
  text += "\n";
  for (const Bar& bar : report.bars) {
    text += "- " + verdict(bar) + ": " + bar.what;
    if (bar.measured) text += ": " + formatted("%.0f ", *bar.measured) + bar.unit;
    text += "; at least " + formatted("%.0f", bar.least);
    if (bar.goal > bar.least) text += ", for " + formatted("%.0f", bar.goal);
    text += "\n";
  }
  return text;
}

}  // namespace rehearse
