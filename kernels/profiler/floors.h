#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/problem.h"

namespace rehearse {

/// A row of a profile's table of measurements, as far as it says how fast an operator was.
struct MeasuredRow {
  std::string op, pass, dtype;
  double seconds = 0;
  double bytes = 0;              ///< moved at least
  double flops = 0;              ///< computed; 0 where the table does not say
  bool bound_by_memory = false;  ///< what it moves is all that its time is compared with
  bool causal = false;
  double query_len = 0, key_len = 0, head_dim = 0;  ///< of attention
};

/// The burst measurements of a table, copies (`op` "copy") among them. Problems where it is no
/// such table.
std::optional<std::vector<MeasuredRow>> read_measured_rows(std::string_view text,
                                                           const std::string& path,
                                                           Problems& problems);

/// The largest operator measured of a kind, beside what bounds it: its bytes at the rate of
/// copies, or its FLOPs at that of the fastest product of its type, whichever takes longer.
struct OperatorFloor {
  MeasuredRow largest;
  double floor_s = 0;
};

/// What a kind of operator is held to on a data-centre GPU. `least` must be reached; `goal`, where
/// it is above, is what for.
struct Bar {
  std::string what, unit;
  double least = 0, goal = 0;
  std::optional<double> measured;  ///< the worst one that counts; nothing: none was measured
  bool passes() const { return measured && *measured >= least; }
};

struct FloorReport {
  double copy_bytes_per_s = 0;  ///< read and written, of the largest copy; 0: none of 64 MiB
  std::vector<OperatorFloor> floors;
  std::vector<Bar> bars;
  bool passes() const;
};

/// Bars: an operator bound by memory that moves 64 MiB or more reaches 75 % of the rate of the
/// largest copy, Adam 80 %; attention over 8,192 tokens, causal, bf16, head size 128, reaches 200
/// TFLOP/s forward and 120 backward, for 300 and 200 (half of the square counted, 2.5 times that
/// backward).
FloorReport floors_of(const std::vector<MeasuredRow>& rows);

/// A Markdown table of the floors, and a line with a verdict for each bar.
std::string floors_text(const FloorReport& report);

}  // namespace rehearse
