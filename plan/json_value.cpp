#include "plan/json_value.h"

#include <charconv>
#include <cmath>

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr std::size_t kColumns = 100;

bool is_plain(const JsonValue& value) { return !value.is_list() && !value.is_object(); }

/// Writes values one after the other into `out_`; `depth` is the indentation of what is written.
class Writer {
 public:
  Writer(std::string& out, JsonLayout layout) : out_(out), pretty_(layout == JsonLayout::Pretty) {}

  void write(const JsonValue& value, std::size_t depth) {
    switch (value.kind) {
      case JsonKind::Null:
      case JsonKind::Faulty:
        out_ += "null";
        return;
      case JsonKind::Boolean:
        out_ += value.boolean ? "true" : "false";
        return;
      case JsonKind::Integer:
        out_ += std::to_string(value.integer);
        return;
      case JsonKind::Number:
        out_ += number_text(value.number);
        return;
      case JsonKind::Text:
        out_ += json_quoted(value.text);
        return;
      case JsonKind::List:
        write_list(value, depth);
        return;
      case JsonKind::Object:
        write_object(value, depth);
        return;
    }
  }

 private:
  void line(std::size_t depth) {
    if (!pretty_) return;
    out_ += '\n';
    out_.append(2 * depth, ' ');
  }

  void write_object(const JsonValue& value, std::size_t depth) {
    if (value.members.empty()) {
      out_ += "{}";
      return;
    }
    out_ += '{';
    for (std::size_t i = 0; i < value.members.size(); ++i) {
      if (i > 0) out_ += ',';
      line(depth + 1);
      out_ += json_quoted(value.members[i].key);
      out_ += pretty_ ? ": " : ":";
      write(value.members[i].value, depth + 1);
    }
    line(depth);
    out_ += '}';
  }

  void write_list(const JsonValue& value, std::size_t depth) {
    bool plain = true;
    for (const JsonValue& item : value.items) plain = plain && is_plain(item);
    if (plain) {
      write_filled(value, depth);
      return;
    }
    out_ += '[';
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      if (i > 0) out_ += ',';
      line(depth + 1);
      write(value.items[i], depth + 1);
    }
    line(depth);
    out_ += ']';
  }

  /// Plain items in lines filled up to kColumns: a list of 16,384 ranks stays readable.
  void write_filled(const JsonValue& value, std::size_t depth) {
    out_ += '[';
    std::size_t line_begin = out_.rfind('\n') == std::string::npos ? 0 : out_.rfind('\n') + 1;
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      if (i > 0) out_ += pretty_ ? ", " : ",";
      std::string item;
      Writer(item, JsonLayout::Compact).write(value.items[i], 0);
      if (pretty_ && i > 0 && out_.size() - line_begin + item.size() > kColumns) {
        out_.pop_back();
        line(depth + 1);
        line_begin = out_.size() - 2 * (depth + 1);
      }
      out_ += item;
    }
    out_ += ']';
  }

  std::string& out_;
  bool pretty_;
};

}  // namespace

JsonValue JsonValue::of_kind(JsonKind kind) {
  JsonValue result;
  result.kind = kind;
  return result;
}

JsonValue JsonValue::of(bool value) {
  JsonValue result = of_kind(JsonKind::Boolean);
  result.boolean = value;
  return result;
}

JsonValue JsonValue::of(std::int64_t value) {
  JsonValue result = of_kind(JsonKind::Integer);
  result.integer = value;
  result.number = static_cast<double>(value);
  return result;
}

JsonValue JsonValue::of(double value) {
  ensure(std::isfinite(value), "JSON has no way to write a number that is not finite");
  constexpr double kExactIntegers = 9007199254740992.0;  // 2^53
  const bool negative_zero = value == 0 && std::signbit(value);
  if (value == std::floor(value) && std::abs(value) < kExactIntegers && !negative_zero)
    return of(static_cast<std::int64_t>(value));
  JsonValue result = of_kind(JsonKind::Number);
  result.number = value;
  return result;
}

JsonValue JsonValue::of(std::string value) {
  JsonValue result = of_kind(JsonKind::Text);
  result.text = std::move(value);
  return result;
}

const JsonValue* JsonValue::find(std::string_view key) const {
  for (const JsonMember& member : members)
    if (member.key == key) return &member.value;
  return nullptr;
}

JsonValue* JsonValue::find(std::string_view key) {
  return const_cast<JsonValue*>(static_cast<const JsonValue*>(this)->find(key));
}

JsonValue& JsonValue::add(std::string key, JsonValue value) {
  ensure(is_object(), "members are added to objects only");
  members.push_back({std::move(key), value.offset, std::move(value)});
  return members.back().value;
}

const char* kind_phrase(JsonKind kind) {
  switch (kind) {
    case JsonKind::Null:
      return "null";
    case JsonKind::Boolean:
      return "true or false";
    case JsonKind::Integer:
    case JsonKind::Number:
      return "a number";
    case JsonKind::Text:
      return "text";
    case JsonKind::List:
      return "a list";
    case JsonKind::Object:
      return "an object";
    case JsonKind::Faulty:
      return "nothing readable";
  }
  return "";
}

std::string to_text(const JsonValue& value, JsonLayout layout) {
  std::string text;
  Writer(text, layout).write(value, 0);
  if (layout == JsonLayout::Pretty) text += '\n';
  return text;
}

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return std::string(buffer, end);
}

std::string json_quoted(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      result += '\\';
      result += letter;
    } else if (letter == '\n') {
      result += "\\n";
    } else if (letter == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      result += "\\u00";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += letter;
    }
  }
  return result + '"';
}

bool split_pointer(std::string_view pointer, std::vector<std::string>& tokens) {
  tokens.clear();
  if (pointer.empty()) return true;
  if (pointer.front() != '/') return false;
  for (std::size_t i = 0; i < pointer.size(); ++i) {
    if (pointer[i] == '/') {
      tokens.emplace_back();
    } else if (pointer[i] == '~') {
      const char next = i + 1 < pointer.size() ? pointer[i + 1] : '\0';
      if (next != '0' && next != '1') return false;
      tokens.back() += next == '0' ? '~' : '/';
      ++i;
    } else {
      tokens.back() += pointer[i];
    }
  }
  return true;
}

std::string pointer_token(std::string_view token) {
  std::string result;
  for (const char letter : token) {
    if (letter == '~')
      result += "~0";
    else if (letter == '/')
      result += "~1";
    else
      result += letter;
  }
  return result;
}

int item_number(std::string_view token) {
  constexpr std::size_t kMostDigits = 9;
  if (token.empty() || token.size() > kMostDigits) return -1;
  if (token.size() > 1 && token.front() == '0') return -1;
  int number = 0;
  for (const char digit : token) {
    if (digit < '0' || digit > '9') return -1;
    number = 10 * number + (digit - '0');
  }
  return number;
}

}  // namespace rehearse
