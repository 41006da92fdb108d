#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plan/json_value.h"
#include "plan/problem.h"

namespace rehearse {

/// The text of a file, for turning byte offsets into places that people can find.
class SourceText {
 public:
  SourceText(std::string file, std::string_view text);

  const std::string& file() const { return file_; }
  std::string_view text() const { return text_; }
  /// A problem at a byte of the text, with line, column and source line filled. O(log lines).
  Problem problem_at(std::uint32_t offset, std::string pointer, std::string message,
                     std::string hint = "") const;

 private:
  std::string file_;
  std::string text_;
  std::vector<std::uint32_t> line_starts_;
};

/// What a document may cost. Beyond them it is refused with a problem.
struct JsonLimits {
  std::size_t bytes = std::size_t{4} << 20;
  std::size_t values = 500'000;
  int depth = 64;
};

/// A parsed JSON document whose every key and value knows its place.
struct JsonDocument {
  SourceText source;
  JsonValue root;
  bool parsed = false;  ///< false: the text is no JSON (reported), and root is Faulty
};

/// Parses JSON with comments (// and /* */). Syntax errors, duplicate keys, numbers that are no
/// finite doubles (NaN, Infinity, 1e400), invalid UTF-8 and documents beyond the limits become
/// located problems; never throws on any text. `file` is for messages.
JsonDocument parse_json(std::string_view text, std::string file, Problems& problems,
                        const JsonLimits& limits = {});

/// Reads the whole file and parses it; a file that cannot be read becomes a problem.
JsonDocument parse_json_file(const std::string& path, Problems& problems,
                             const JsonLimits& limits = {});

}  // namespace rehearse
