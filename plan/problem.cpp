#include "plan/problem.h"

#include <algorithm>
#include <tuple>

namespace rehearse {
namespace {

constexpr std::size_t kShownColumns = 100;

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// Bytes of the UTF-8 character at `at`; 0 where there is none.
std::size_t character_bytes(const std::string& text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if (!continues_character(text[at + i])) return 0;
  return length;
}

/// The part of a line that is shown, and the column of the caret in it.
struct Excerpt {
  std::string text;
  std::size_t caret = 0;
};

/// Cuts a long line to a window around the column, at whole characters. Control bytes are shown as
/// blanks and bytes that are no UTF-8 as "?", so that every character is one column wide.
Excerpt excerpt_of(const std::string& line, int column) {
  const std::size_t at = std::min(static_cast<std::size_t>(std::max(column, 1) - 1), line.size());
  std::size_t begin = 0;
  if (line.size() > kShownColumns && at > kShownColumns * 3 / 4) begin = at - kShownColumns / 2;
  while (begin > 0 && continues_character(line[begin])) --begin;
  std::size_t end = std::min(line.size(), begin + kShownColumns);
  while (end > begin && end < line.size() && continues_character(line[end])) --end;

  Excerpt excerpt;
  if (begin > 0) excerpt.text = "... ";
  excerpt.caret = excerpt.text.size();
  for (std::size_t i = begin; i < end;) {
    const std::size_t length = character_bytes(line, i);
    if (length > 1)
      excerpt.text += line.substr(i, length);
    else if (length == 0)
      excerpt.text += '?';
    else
      excerpt.text +=
          static_cast<unsigned char>(line[i]) >= 0x20 && line[i] != 0x7F ? line[i] : ' ';
    if (i < at) ++excerpt.caret;
    i += std::max(length, std::size_t{1});
  }
  if (end < line.size()) excerpt.text += " ...";
  return excerpt;
}

std::string block_of(const Problem& problem) {
  std::string block = problem.file;
  if (problem.line > 0) {
    block += ':' + std::to_string(problem.line);
    if (problem.column > 0) block += ':' + std::to_string(problem.column);
  }
  block += block.empty() ? "error: " : ": error: ";
  if (!problem.pointer.empty()) block += problem.pointer + ": ";
  block += problem.message + '\n';
  if (!problem.source_line.empty() && problem.column > 0) {
    const Excerpt excerpt = excerpt_of(problem.source_line, problem.column);
    block += "  " + excerpt.text + "\n  " + std::string(excerpt.caret, ' ') + "^\n";
  }
  if (!problem.hint.empty()) block += "  help: " + problem.hint + '\n';
  return block;
}

}  // namespace

std::string Problems::text() const {
  std::vector<const Problem*> order;
  for (const Problem& problem : problems_) order.push_back(&problem);
  std::stable_sort(order.begin(), order.end(), [](const Problem* a, const Problem* b) {
    return std::tie(a->file, a->line, a->column) < std::tie(b->file, b->line, b->column);
  });
  std::string text;
  for (const Problem* problem : order) text += block_of(*problem);
  return text;
}

}  // namespace rehearse
