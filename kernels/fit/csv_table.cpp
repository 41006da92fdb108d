#include "kernels/fit/csv_table.h"

#include <charconv>
#include <cmath>

namespace rehearse {
namespace {

/// Reported problems of one table; beyond, the rest would only scroll away the first.
constexpr std::size_t kMostProblems = 50;

/// Reads cells of one line.
class LineReader {
 public:
  LineReader(std::string_view text, std::size_t begin, std::size_t end)
      : text_(text), at_(begin), end_(end) {}

  /// False at the end of the line. `unclosed` is set where a quote has no end.
  bool next(CsvTable::Cell& cell, bool& unclosed) {
    if (done_) return false;
    cell.text.clear();
    cell.offset = static_cast<std::uint32_t>(at_);
    if (at_ < end_ && text_[at_] == '"') {
      unclosed = !quoted(cell.text);
    } else {
      const std::size_t comma = std::min(text_.find(',', at_), end_);
      cell.text = std::string(text_.substr(at_, comma - at_));
      at_ = comma;
    }
    done_ = at_ >= end_;
    ++at_;  // the comma
    return true;
  }

 private:
  bool quoted(std::string& out) {
    for (++at_; at_ < end_; ++at_) {
      if (text_[at_] != '"') {
        out += text_[at_];
      } else if (at_ + 1 < end_ && text_[at_ + 1] == '"') {
        out += text_[at_++];
      } else {
        ++at_;
        return at_ == end_ || text_[at_] == ',';
      }
    }
    return false;
  }

  std::string_view text_;
  std::size_t at_, end_;
  bool done_ = false;
};

}  // namespace

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

std::optional<CsvTable> CsvTable::parse(std::string_view text, const std::string& path,
                                        Problems& problems) {
  CsvTable table(path, text);
  if (!table.split(problems)) return std::nullopt;
  return table;
}

bool CsvTable::split(Problems& problems) {
  const std::string_view text = source_.text();
  const std::size_t before = problems.count();
  Cell cell;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::size_t next = end + 1;
    if (end > begin && text[end - 1] == '\r') --end;
    const bool is_header = header_.empty();
    const std::size_t first = cells_.size();
    bool unclosed = false;
    if (end > begin) {
      for (LineReader line(text, begin, end); line.next(cell, unclosed);)
        (is_header ? header_ : cells_).push_back(cell);
      if (unclosed)
        problem({.text = "", .offset = static_cast<std::uint32_t>(begin)},
                "a quote of this line does not end before a comma", "", problems);
      else if (!is_header && cells_.size() - first != header_.size())
        problem({.text = "", .offset = static_cast<std::uint32_t>(begin)},
                "the line has " + std::to_string(cells_.size() - first) +
                    " cells, the header names " + std::to_string(header_.size()) + " columns",
                "", problems);
      if (problems.count() > before + kMostProblems) return false;
    }
    begin = next;
  }
  for (std::size_t i = 0; i < header_.size(); ++i)
    if (column(header_[i].text) != static_cast<int>(i))
      problem(header_[i], "the column \"" + header_[i].text + "\" is there twice", "", problems);
  if (header_.empty())
    problem({}, "the table is empty", "the first line names the columns", problems);
  return problems.count() == before;
}

int CsvTable::column(std::string_view name) const {
  for (std::size_t i = 0; i < header_.size(); ++i)
    if (header_[i].text == name) return static_cast<int>(i);
  return -1;
}

bool CsvTable::has_all(const std::vector<std::string>& names) const {
  for (const std::string& name : names)
    if (column(name) < 0) return false;
  return true;
}

std::optional<double> CsvTable::number(std::size_t row, int column_index, double least, double most,
                                       Problems& problems) const {
  const Cell& at = cell(row, column_index);
  const std::string& name = header_[static_cast<std::size_t>(column_index)].text;
  const auto value = parse_number(at.text);
  if (!value) {
    problem(at, "\"" + at.text + "\" is no number", "the column " + name + " holds plain numbers",
            problems);
    return std::nullopt;
  }
  if (*value < least || *value > most) {
    problem(at, name + " is " + at.text + ", which cannot be",
            "it lies between " + number_text(least) + " and " + number_text(most), problems);
    return std::nullopt;
  }
  return value;
}

std::optional<std::int64_t> CsvTable::whole(std::size_t row, int column_index,
                                            Problems& problems) const {
  const auto value = number(row, column_index, 1, 1e12, problems);
  if (!value) return std::nullopt;
  if (*value != std::floor(*value)) {
    problem(cell(row, column_index), "a size is a whole number", "", problems);
    return std::nullopt;
  }
  return static_cast<std::int64_t>(*value);
}

void CsvTable::problem(const Cell& cell, std::string message, std::string hint,
                       Problems& problems) const {
  problems.add(source_.problem_at(cell.offset, "", std::move(message), std::move(hint)));
}

std::string CsvTable::place(const Cell& cell) const {
  const Problem at = source_.problem_at(cell.offset, "", "", "");
  return at.file + ":" + std::to_string(at.line) + ":" + std::to_string(at.column);
}

}  // namespace rehearse
