#include <cmath>

#include "plan/edit_distance.h"
#include "plan/table.h"

namespace rehearse {
namespace {

/// A bound as people write it; whole numbers without an exponent.
std::string bound_text(double bound, Dimension dimension) {
  if (dimension != Dimension::Count) return format_quantity(bound, dimension);
  constexpr double kWrittenOut = 1e7;
  if (bound == std::floor(bound) && std::abs(bound) < kWrittenOut)
    return std::to_string(static_cast<long long>(bound));
  return number_text(bound);
}

/// Reports a number out of its range; true where it is inside.
bool check_range(double number, const Range& range, Dimension dimension, const JsonValue& value,
                 Reading& reading, const std::string& hint) {
  if (number >= range.minimum && number <= range.maximum) return true;
  if (range.or_zero && number == 0) return true;
  const bool low = number < range.minimum;
  reading.problem(value.offset,
                  std::string(range.or_zero ? "must be 0 or at " : "must be at ") +
                      (low ? "least " : "most ") +
                      bound_text(low ? range.minimum : range.maximum, dimension) + ", but is " +
                      bound_text(number, dimension),
                  hint);
  return false;
}

/// The hint for a text where a bare number belongs.
std::string unquote_hint(const JsonValue& value) {
  if (!value.is_text() || !parse_quantity(value.text, Dimension::Count).value) return "";
  return "write it without quotes";
}

}  // namespace

void report_kind(const JsonValue& value, Reading& reading, const std::string& expected,
                 std::string hint) {
  if (value.kind == JsonKind::Faulty) return;
  if (value.kind == JsonKind::Null && hint.empty()) hint = "leave the key out for its default";
  constexpr std::size_t kLongestText = 40;
  std::string found = kind_phrase(value.kind);
  if (value.kind == JsonKind::Boolean) found = value.boolean ? "true" : "false";
  if (value.is_text() && value.text.size() <= kLongestText) found += ' ' + json_quoted(value.text);
  reading.problem(value.offset, "must be " + expected + ", but is " + found, std::move(hint));
}

bool read_integer(const JsonValue& value, Reading& reading, const Range& range,
                  std::int64_t& target) {
  if (!value.is_number()) {
    report_kind(value, reading, "a whole number", unquote_hint(value));
    return false;
  }
  if (value.kind == JsonKind::Number && value.number != std::floor(value.number)) {
    reading.problem(value.offset, "must be a whole number, but is " + number_text(value.number));
    return false;
  }
  if (!check_range(value.number, range, Dimension::Count, value, reading, "")) return false;
  constexpr double kBeyond = 9223372036854775808.0;  // 2^63: what an integer cannot hold
  if (value.kind == JsonKind::Number && std::abs(value.number) >= kBeyond) {
    reading.problem(value.offset, "is beyond what 64 bits hold");
    return false;
  }
  target =
      value.kind == JsonKind::Integer ? value.integer : static_cast<std::int64_t>(value.number);
  return true;
}

bool read_number(const JsonValue& value, Reading& reading, const Range& range, double& target) {
  if (!value.is_number()) {
    report_kind(value, reading, "a number", unquote_hint(value));
    return false;
  }
  if (!check_range(value.number, range, Dimension::Count, value, reading, "")) return false;
  target = value.number;
  return true;
}

bool read_quantity(const JsonValue& value, Reading& reading, Dimension dimension,
                   const Range& range, double& target) {
  const std::string example = json_quoted(unit_example(dimension));
  double number = value.number;
  std::string hint;
  if (value.is_text()) {
    const ParsedQuantity parsed = parse_quantity(value.text, dimension);
    if (!parsed.value) {
      reading.problem(value.offset, parsed.fault, parsed.hint);
      return false;
    }
    number = *parsed.value;
  } else if (!value.is_number()) {
    report_kind(value, reading, "a quantity such as " + example);
    return false;
  } else if (dimension != Dimension::Count) {
    hint = std::string("a number without a unit is in ") + unit_name(dimension) +
           "; write it like " + example;
  }
  if (!check_range(number, range, dimension, value, reading, hint)) return false;
  target = number;
  return true;
}

bool read_boolean(const JsonValue& value, Reading& reading, bool& target) {
  if (value.kind != JsonKind::Boolean) {
    const bool quoted = value.text == "true" || value.text == "false";
    report_kind(value, reading, "true or false", quoted ? "write it without quotes" : "");
    return false;
  }
  target = value.boolean;
  return true;
}

bool read_text(const JsonValue& value, Reading& reading, std::string& target) {
  if (!value.is_text()) {
    report_kind(value, reading, "text", value.is_number() ? "write it in double quotes" : "");
    return false;
  }
  target = value.text;
  return true;
}

bool read_choice(const JsonValue& value, Reading& reading, const std::vector<std::string>& names,
                 std::size_t& target) {
  std::string text;
  if (!read_text(value, reading, text)) return false;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != text) continue;
    target = i;
    return true;
  }
  reading.problem(value.offset, json_quoted(text) + " is not known here", name_hint(text, names));
  return false;
}

bool check_list(const JsonValue& value, Reading& reading, const Range& length) {
  if (!value.is_list()) {
    report_kind(value, reading, "a list");
    return false;
  }
  const auto items = static_cast<double>(value.items.size());
  if (items >= length.minimum && items <= length.maximum) return true;
  const bool low = items < length.minimum;
  reading.problem(value.offset,
                  std::string("must have at ") + (low ? "least " : "most ") +
                      bound_text(low ? length.minimum : length.maximum, Dimension::Count) +
                      " items, but has " + std::to_string(value.items.size()));
  return false;
}

}  // namespace rehearse
