#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/json_document.h"
#include "plan/problem.h"

namespace rehearse {

/// A table of comma-separated values with a header line; cells may be in double quotes. Cells
/// know their places, so that what is wrong with one can be told.
class CsvTable {
 public:
  struct Cell {
    std::string text;
    std::uint32_t offset = 0;
  };

  /// Lines with more or fewer cells than the header, doubled column names and unclosed quotes
  /// become problems; nothing is returned then.
  static std::optional<CsvTable> parse(std::string_view text, const std::string& path,
                                       Problems& problems);

  const std::vector<Cell>& header() const { return header_; }
  std::size_t row_count() const { return header_.empty() ? 0 : cells_.size() / header_.size(); }
  /// −1 where there is no such column.
  int column(std::string_view name) const;
  bool has_all(const std::vector<std::string>& names) const;
  const Cell& cell(std::size_t row, int column) const {
    return cells_[row * header_.size() + static_cast<std::size_t>(column)];
  }

  /// The number in a cell; reported, and nothing returned, where there is none, or it is not
  /// finite or outside the range.
  std::optional<double> number(std::size_t row, int column, double least, double most,
                               Problems& problems) const;
  std::optional<std::int64_t> whole(std::size_t row, int column, Problems& problems) const;
  void problem(const Cell& cell, std::string message, std::string hint, Problems& problems) const;
  std::string place(const Cell& cell) const;  ///< "file:line:column"

  const SourceText& source() const { return source_; }

 private:
  CsvTable(std::string path, std::string_view text) : source_(std::move(path), text) {}
  bool split(Problems& problems);

  SourceText source_;
  std::vector<Cell> header_;
  std::vector<Cell> cells_;  ///< row by row
};

/// The number a text is, whole; nothing else may stand around it.
std::optional<double> parse_number(std::string_view text);

}  // namespace rehearse
