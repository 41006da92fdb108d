#include "plan/json_syntax.h"

#include <algorithm>
#include <cctype>

namespace rehearse {
namespace {

bool is_blank(char letter) {
  return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r';
}

bool is_word(char letter) {
  return std::isalnum(static_cast<unsigned char>(letter)) || letter == '_' || letter == '+' ||
         letter == '-' || letter == '.';
}

/// What the parser found, without its preamble and without the raw bytes it quotes at the end.
std::string detail_of(std::string_view parser_message) {
  const std::size_t preamble = parser_message.find(" - ");
  if (preamble != std::string_view::npos) parser_message.remove_prefix(preamble + 3);
  parser_message = parser_message.substr(0, parser_message.find("; last read"));
  return std::string(parser_message);
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// The last byte before `at` that is not blank; comments count as text, which costs a hint only.
char before(std::string_view text, std::size_t at) {
  while (at > 0 && is_blank(text[at - 1])) --at;
  return at > 0 ? text[at - 1] : '\0';
}

std::string hint_at(std::string_view text, std::size_t token, std::string_view detail) {
  const char letter = token < text.size() ? text[token] : '\0';
  if ((letter == ']' || letter == '}') && before(text, token) == ',')
    return "remove the comma before it: JSON has no comma behind the last item";
  if (letter == '\'') return "texts and keys stand in double quotes";
  if (contains(detail, "; expected string literal")) return "a key in double quotes belongs here";
  if (contains(detail, "invalid literal") && std::isalpha(static_cast<unsigned char>(letter)))
    return "texts and keys stand in double quotes; the only bare words are true, false and null";
  if (contains(detail, "; expected ','") || contains(detail, "; expected '}'") ||
      contains(detail, "; expected ']'"))
    return "a comma may be missing before it";
  if (contains(detail, "; expected ':'")) return "a colon belongs between a key and its value";
  return "";
}

}  // namespace

std::size_t next_token(std::string_view text, std::size_t at) {
  if (at == 0 && text.rfind("\xEF\xBB\xBF", 0) == 0) at = 3;  // the parser passes over it too
  while (at < text.size()) {
    if (is_blank(text[at]) || text[at] == ',' || text[at] == ':') {
      ++at;
    } else if (text.compare(at, 2, "//") == 0) {
      at = std::min(text.find('\n', at), text.size());
    } else if (text.compare(at, 2, "/*") == 0) {
      const std::size_t end = text.find("*/", at + 2);
      at = end == std::string_view::npos ? text.size() : end + 2;
    } else {
      break;
    }
  }
  return at;
}

std::size_t token_end(std::string_view text, std::size_t at) {
  if (at >= text.size()) return at;
  if (text[at] == '"') {
    for (++at; at < text.size() && text[at] != '"'; ++at)
      if (text[at] == '\\') ++at;
    return std::min(at + 1, text.size());
  }
  if (!is_word(text[at])) return at + 1;
  while (at < text.size() && is_word(text[at])) ++at;
  return at;
}

std::size_t unwritable_number(std::string_view text, std::size_t at) {
  const std::size_t end = token_end(text, at);
  std::string word(text.substr(std::min(at, text.size()), end - at));
  std::transform(word.begin(), word.end(), word.begin(), [](char letter) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  });
  if (!word.empty() && (word[0] == '-' || word[0] == '+')) word.erase(0, 1);
  return word == "nan" || word == "inf" || word == "infinity" ? end - at : 0;
}

SyntaxFault syntax_fault(std::string_view text, std::size_t token, std::size_t byte,
                         std::size_t open, std::string_view parser_message) {
  const std::string detail = detail_of(parser_message);
  SyntaxFault fault{token, "this is not JSON: " + detail, ""};
  if (contains(detail, "unexpected end of input")) {
    if (next_token(text, 0) >= text.size()) {
      return {0, "the document is empty", "write a JSON object"};
    }
    fault.offset = token;
    fault.message = "this is not JSON: the text ends before the document is complete";
    if (open != std::string_view::npos) {
      const std::size_t line =
          1 + static_cast<std::size_t>(std::count(text.begin(), text.begin() + open, '\n'));
      fault.hint = std::string("the ") + (text[open] == '{' ? "object" : "list") +
                   " that begins in line " + std::to_string(line) + " is not closed";
    }
    return fault;
  }
  if (contains(detail, "invalid string")) {
    if (contains(detail, "must be escaped")) {
      fault.message = "this is not JSON: the text that begins here is not closed in its line";
      fault.hint = "write a double quote at its end, and \\n for a line feed in it";
    } else if (contains(detail, "UTF-8")) {
      fault.offset = byte;
      fault.message = "this is not JSON: the byte here is not UTF-8";
      fault.hint = "save the file as UTF-8";
    } else {
      fault.offset = contains(detail, "missing closing quote") ? token : byte;
    }
    return fault;
  }
  if (contains(detail, "invalid comment")) fault.hint = "comments are // … or /* … */";
  if (fault.hint.empty()) fault.hint = hint_at(text, token, detail);
  return fault;
}

}  // namespace rehearse
