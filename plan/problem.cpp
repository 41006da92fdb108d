#include "plan/problem.h"

#include <algorithm>
#include <tuple>

namespace rehearse {
namespace {

constexpr std::size_t kShownColumns = 100;

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// The part of a line that is shown, and the column of the caret in it.
struct Excerpt {
  std::string text;
  std::size_t caret = 0;
};

/// Cuts a long line to a window around the column, at whole characters, and shows control bytes
/// as blanks, so that one byte or character is one column under which the caret can stand.
Excerpt excerpt_of(const std::string& line, int column) {
  const std::size_t at = std::min(static_cast<std::size_t>(std::max(column, 1) - 1), line.size());
  std::size_t begin = 0;
  if (line.size() > kShownColumns && at > kShownColumns * 3 / 4) begin = at - kShownColumns / 2;
  while (begin > 0 && continues_character(line[begin])) --begin;
  std::size_t end = std::min(line.size(), begin + kShownColumns);
  while (end > begin && end < line.size() && continues_character(line[end])) --end;

  Excerpt excerpt;
  if (begin > 0) excerpt.text = "... ";
  for (std::size_t i = begin; i < end; ++i) {
    const bool visible = static_cast<unsigned char>(line[i]) >= 0x20 && line[i] != 0x7F;
    excerpt.text += visible ? line[i] : ' ';
  }
  excerpt.caret = begin > 0 ? 4 : 0;
  for (std::size_t i = begin; i < at; ++i)
    if (!continues_character(line[i])) ++excerpt.caret;
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
