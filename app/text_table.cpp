#include "app/text_table.h"

#include <algorithm>
#include <numeric>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Columns stand so far apart, or one apart where that makes room for all.
constexpr std::size_t kWideGap = 2, kNarrowGap = 1;

std::string padded(const std::string& text, std::size_t width, Align align) {
  const std::size_t used = display_width(text);
  const std::string fill(used < width ? width - used : 0, ' ');
  return align == Align::Left ? text + fill : fill + text;
}

std::size_t total_width(const std::vector<std::size_t>& widths,
                        const std::vector<std::size_t>& shown, std::size_t gap) {
  std::size_t total = shown.empty() ? 0 : gap * (shown.size() - 1);
  for (std::size_t column : shown) total += widths[column];
  return total;
}

std::string without_trailing_spaces(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::string clipped(const std::string& text, std::size_t width) {
  if (display_width(text) <= width) return text;
  std::size_t columns = 0, bytes = 0;
  while (bytes < text.size()) {
    std::size_t next = bytes + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
    if (columns + 1 >= width) break;
    ++columns;
    bytes = next;
  }
  return text.substr(0, bytes) + "…";
}

std::string wrapped(const std::string& text, std::size_t width, std::size_t indent) {
  // Spaces that the text begins with are kept.
  std::size_t position = std::min(text.find_first_not_of(' '), text.size());
  std::string result(position, ' ');
  std::size_t column = position;
  bool at_begin = true;
  while (position < text.size()) {
    std::size_t end = text.find(' ', position);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(position, end - position);
    const std::size_t word_width = display_width(word);
    if (!at_begin && column + 1 + word_width > width) {
      result += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (!at_begin) {
      result += ' ';
      ++column;
    }
    at_begin = false;
    result += word;
    column += word_width;
    position = end + 1;
  }
  return result;
}

void TextTable::add_row(std::vector<std::string> cells, Tone tone) {
  ensure(cells.size() == columns_.size(), "a row has a cell for each column");
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back({.cells = std::move(cells), .sentence = {}, .tone = tone});
}

void TextTable::add_sentence_row(std::string first_cell, std::string sentence, Tone tone) {
  std::vector<std::string> cells(columns_.size());
  cells[0] = printable(first_cell);
  rows_.push_back({.cells = std::move(cells), .sentence = printable(sentence), .tone = tone});
}

std::vector<std::size_t> TextTable::natural_widths() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = std::max(display_width(columns_[c].title), display_width(columns_[c].unit));
    for (const Row& row : rows_) width = std::max(width, display_width(row.cells[c]));
    widths.push_back(width);
  }
  return widths;
}

std::vector<std::size_t> TextTable::shown_columns(std::vector<std::size_t>& widths,
                                                  std::size_t available, std::size_t gap) const {
  std::vector<std::size_t> shown(columns_.size());
  std::iota(shown.begin(), shown.end(), std::size_t{0});
  // First narrow what may be cut, then leave out what may be left out.
  for (std::size_t column : shown) {
    const std::size_t excess = total_width(widths, shown, gap);
    const std::size_t least = columns_[column].least_width;
    if (excess <= available || least == 0 || widths[column] <= least) continue;
    widths[column] -= std::min(excess - available, widths[column] - least);
  }
  while (total_width(widths, shown, gap) > available) {
    const auto victim = std::max_element(shown.begin(), shown.end(), [&](auto a, auto b) {
      return columns_[a].droppable < columns_[b].droppable;
    });
    if (columns_[*victim].droppable == 0) break;
    shown.erase(victim);
  }
  return shown;
}

std::string TextTable::text(std::size_t max_width, bool color, std::size_t indent) const {
  std::vector<std::size_t> widths = natural_widths();
  const std::size_t available = max_width == 0 ? SIZE_MAX : max_width - indent;
  std::size_t gap = kNarrowGap;
  const std::vector<std::size_t> shown = shown_columns(widths, available, gap);
  // Where narrow gaps save neither a column nor a letter, wide ones read better.
  if (total_width(widths, shown, kWideGap) <= available) gap = kWideGap;
  std::string result;

  const auto add_line = [&](const auto& cell_of, Tone tone) {
    std::string line;
    for (std::size_t column : shown) {
      if (column != shown.front()) line += std::string(gap, ' ');
      line +=
          padded(clipped(cell_of(column), widths[column]), widths[column], columns_[column].align);
    }
    result += std::string(indent, ' ') + toned(without_trailing_spaces(line), tone, color) + '\n';
  };

  add_line([&](std::size_t c) { return columns_[c].title; }, Tone::Strong);
  const bool has_units = std::any_of(shown.begin(), shown.end(),
                                     [&](std::size_t c) { return !columns_[c].unit.empty(); });
  if (has_units) add_line([&](std::size_t c) { return columns_[c].unit; }, Tone::Faint);
  for (const Row& row : rows_) {
    if (row.sentence.empty()) {
      add_line([&](std::size_t c) { return row.cells[c]; }, row.tone);
      continue;
    }
    const std::size_t first = widths[0];
    const std::size_t rest = max_width == 0 ? SIZE_MAX : available - first - gap;
    const std::string line = padded(clipped(row.cells[0], first), first, columns_[0].align) +
                             std::string(gap, ' ') + clipped(row.sentence, rest);
    result += std::string(indent, ' ') + toned(line, row.tone, color) + '\n';
  }
  return result;
}

}  // namespace rehearse
