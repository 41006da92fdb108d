#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "app/terminal.h"

namespace rehearse {

enum class Align : std::uint8_t { Left, Right };

/// A column of a table for people. The unit stands under the title, so that no number lacks one.
struct TextColumn {
  std::string title;
  std::string unit;
  Align align = Align::Right;
  /// Columns are left out from the highest number down until the table is narrow enough; those
  /// of 0 stay.
  int droppable = 0;
  /// May be cut with "…" to make room, but not below this many columns; 0: never cut.
  std::size_t least_width = 0;
};

/// Rows of text cells, aligned, at most so wide. Knows nothing of what it prints.
class TextTable {
 public:
  explicit TextTable(std::vector<TextColumn> columns) : columns_(std::move(columns)) {}

  void add_row(std::vector<std::string> cells, Tone tone = Tone::Plain);
  /// A row that says a sentence from its second column on (a plan that cannot be).
  void add_sentence_row(std::string first_cell, std::string sentence, Tone tone);
  bool empty() const { return rows_.empty(); }

  /// The table, each line indented and ended by a line end. `max_width` 0: all of it.
  std::string text(std::size_t max_width, bool color, std::size_t indent = 2) const;

 private:
  struct Row {
    std::vector<std::string> cells;
    std::string sentence;
    Tone tone = Tone::Plain;
  };
  std::vector<std::size_t> natural_widths() const;
  std::vector<std::size_t> shown_columns(std::vector<std::size_t>& widths, std::size_t available,
                                         std::size_t gap) const;

  std::vector<TextColumn> columns_;
  std::vector<Row> rows_;
};

/// Sentences broken into lines of at most `width` columns, later ones indented.
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent);

/// The text cut to `width` columns, the last being "…" where anything was cut.
std::string clipped(const std::string& text, std::size_t width);

}  // namespace rehearse
