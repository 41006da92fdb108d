#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace rehearse {

/// Where the next token begins: behind blanks, commas, colons and comments; the text's end where
/// there is none.
std::size_t next_token(std::string_view text, std::size_t at);

/// Where the valid token that begins at `at` ends.
std::size_t token_end(std::string_view text, std::size_t at);

/// Length of a number at `at` that JSON has no way to write ("NaN", "-Infinity"); 0 for others.
std::size_t unwritable_number(std::string_view text, std::size_t at);

/// What is wrong with a text that is no JSON, for people.
struct SyntaxFault {
  std::size_t offset = 0;
  std::string message;
  std::string hint;
};
/// From what the parser says: `token` is where the token at which it stopped begins, `byte` the
/// last byte it read, `open` where the innermost unfinished list or object begins (npos: none).
SyntaxFault syntax_fault(std::string_view text, std::size_t token, std::size_t byte,
                         std::size_t open, std::string_view parser_message);

}  // namespace rehearse
