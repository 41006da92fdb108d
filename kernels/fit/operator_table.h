#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/fit/csv_table.h"
#include "kernels/profile.h"

namespace rehearse {

/// One measured operator.
struct OperatorSample {
  Operator op;
  double seconds = 0;
  bool sustained = false;  ///< measured in a long run at steady clocks, not in a burst
  /// Of the GPU itself or another of its architecture; others only lend ratios between passes and
  /// shares of bandwidth.
  bool native = true;
  /// Time on the GPU itself can be used; ratios to others of the same table always can.
  bool absolute = true;
  bool apart = false;   ///< a sample only: other kernels stand for its name in fits
  double l2_bytes = 0;  ///< of the GPU it was measured on
  int table = 0;
};

/// Measured operators of one table, as far as they say something about the GPU.
struct OperatorTable {
  std::string path, kind;  ///< kind: which layout of columns was recognised
  std::string digest;      ///< FNV-1a of the text
  std::vector<OperatorSample> samples;
  std::vector<CollectiveCurve> collectives;
  std::vector<CopyTime> copies;
  MemoryOverheads overheads;       ///< of the GPU itself
  std::vector<std::string> notes;  ///< what was left out, and why
};

/// Why the GPU cannot have taken this time: faster than its data sheet allows, or a thousand times
/// slower. Empty: it can.
std::string why_impossible(const OperatorSample& sample, const DeviceFacts& device);

/// Reads one table by its columns, a trace of torch.profiler, or what nccl-tests wrote
/// (docs/profiles.md lists the layouts). A table that is not
/// recognised, lacks columns, or has cells that cannot be becomes located problems; nothing is
/// returned then. Rows about other GPUs that say nothing about `device` are left out with a note.
std::optional<OperatorTable> read_operator_table(std::string_view text, const std::string& path,
                                                 const DeviceFacts& device, Problems& problems);

/// The catalogue's GPU behind a table's name for it ("h200_sxm", "NVIDIA H200").
struct TableGpu {
  const char* spelling;
  const char* gpu;
  double memory_bandwidth_bytes_per_s;
  int compute_capability;
  double l2_bytes;
};
const TableGpu* find_table_gpu(std::string_view spelling);

/// Rows of a table are checked and collected through this.
class SampleCollector {
 public:
  SampleCollector(const CsvTable& csv, const DeviceFacts& device, OperatorTable& out,
                  Problems& problems)
      : csv_(csv), device_(device), out_(out), problems_(problems) {}

  const CsvTable& csv() const { return csv_; }
  const DeviceFacts& device() const { return device_; }
  Problems& problems() { return problems_; }

  /// Adds a sample unless no GPU of this data sheet can be so fast, or its time must be in another
  /// unit. Such rows are problems of own tables (`strict`), and left out of published ones.
  void add(OperatorSample sample, const CsvTable::Cell& time, bool strict);
  void add_copy(const CopyTime& copy) { out_.copies.push_back(copy); }
  MemoryOverheads& overheads() { return out_.overheads; }
  const std::string& path() const { return out_.path; }
  void leave_out(const std::string& why) { out_.notes.push_back(why); }
  void finish();

 private:
  const CsvTable& csv_;
  const DeviceFacts& device_;
  OperatorTable& out_;
  Problems& problems_;
  std::size_t impossible_ = 0;
  std::string first_impossible_;
};

// Readers of each layout; they report into the collector's problems.
void read_own_layout(SampleCollector& out);
void read_product_columns(SampleCollector& out);
void read_attention_rows(SampleCollector& out);
void read_layout_rows(SampleCollector& out);
void read_attention_passes(SampleCollector& out);
void read_norm_passes(SampleCollector& out);
void read_elementwise_rows(SampleCollector& out);

}  // namespace rehearse
