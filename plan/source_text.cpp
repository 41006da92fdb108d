#include <algorithm>

#include "plan/json_document.h"

namespace rehearse {

SourceText::SourceText(std::string file, std::string_view text)
    : file_(std::move(file)), text_(text) {
  line_starts_.push_back(0);
  for (std::size_t i = 0; i < text_.size(); ++i)
    if (text_[i] == '\n') line_starts_.push_back(static_cast<std::uint32_t>(i + 1));
}

Problem SourceText::problem_at(std::uint32_t offset, std::string pointer, std::string message,
                               std::string hint) const {
  offset = std::min(offset, static_cast<std::uint32_t>(text_.size()));
  // A document that ends too early is faulted where its last line ends, not on an empty line.
  if (offset == text_.size())
    while (offset > 0 && (text_[offset - 1] == '\n' || text_[offset - 1] == '\r')) --offset;
  const auto after = std::upper_bound(line_starts_.begin(), line_starts_.end(), offset);
  const std::size_t line = static_cast<std::size_t>(after - line_starts_.begin());
  const std::uint32_t begin = line_starts_[line - 1];
  std::size_t end = text_.find('\n', begin);
  if (end == std::string::npos) end = text_.size();
  if (end > begin && text_[end - 1] == '\r') --end;
  // Lines may be megabytes long, and every problem keeps its own.
  constexpr std::size_t kKeptBytes = std::size_t{1} << 16;
  std::string shown = text_.substr(begin, std::min(end - begin, kKeptBytes));
  if (offset - begin >= shown.size()) shown = offset == end ? shown : std::string();
  return Problem{file_,
                 static_cast<int>(line),
                 static_cast<int>(offset - begin + 1),
                 std::move(pointer),
                 std::move(message),
                 std::move(hint),
                 std::move(shown)};
}

}  // namespace rehearse
