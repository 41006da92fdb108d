#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rehearse {

enum class JsonKind : std::uint8_t {
  Null,
  Boolean,
  Integer,  ///< written without point and exponent, and within 64 bits
  Number,
  Text,
  List,
  Object,
  Faulty,  ///< a value whose problem was already reported; readers pass over it
};

struct JsonMember;

/// A JSON value that knows where it stands in its document. Members keep the order of the file;
/// keys are unique (the reader of documents reports doubles).
struct JsonValue {
  JsonKind kind = JsonKind::Null;
  bool boolean = false;
  std::uint32_t offset = 0;  ///< first byte of the value in its document
  std::int64_t integer = 0;
  double number = 0;  ///< also filled for Integer
  std::string text;
  std::vector<JsonValue> items;
  std::vector<JsonMember> members;

  static JsonValue of(bool value);
  static JsonValue of(std::int64_t value);
  static JsonValue of(int value) { return of(std::int64_t{value}); }
  static JsonValue of(double value);  ///< REQUIRES: finite. Whole numbers below 2^53 are Integers
  static JsonValue of(std::string value);
  static JsonValue of(const char* value) { return of(std::string(value)); }
  static JsonValue list() { return of_kind(JsonKind::List); }
  static JsonValue object() { return of_kind(JsonKind::Object); }

  bool is_number() const { return kind == JsonKind::Integer || kind == JsonKind::Number; }
  bool is_object() const { return kind == JsonKind::Object; }
  bool is_list() const { return kind == JsonKind::List; }
  bool is_text() const { return kind == JsonKind::Text; }

  /// The member's value; nullptr where there is none or this is no object.
  const JsonValue* find(std::string_view key) const;
  JsonValue* find(std::string_view key);
  /// Adds a member at the end; for documents made by the program, whose keys are known to differ.
  JsonValue& add(std::string key, JsonValue value);

 private:
  static JsonValue of_kind(JsonKind kind);
};

struct JsonMember {
  std::string key;
  std::uint32_t offset = 0;  ///< first byte of the key (its quote)
  JsonValue value;
};

/// "a number", "an object", … for messages.
const char* kind_phrase(JsonKind kind);

/// The value as JSON text. Pretty: two spaces an level, lists of plain values filled into lines
/// of up to 100 columns, a line feed at the end. Compact: one line without it. Doubles in their
/// shortest form that reads back to the same bits; member order is kept, so equal values give
/// equal bytes.
enum class JsonLayout : std::uint8_t { Compact, Pretty };
std::string to_text(const JsonValue& value, JsonLayout layout = JsonLayout::Pretty);

/// Shortest text that reads back to the same double ("0.1", "5e+10").
std::string number_text(double value);

/// The text as a JSON string, quotes included.
std::string json_quoted(std::string_view text);

/// RFC 6901: "/a/0/b~1c" ↔ {"a", "0", "b/c"}. False where the text is no pointer.
bool split_pointer(std::string_view pointer, std::vector<std::string>& tokens);
std::string pointer_token(std::string_view token);
/// The index of a list's item as a pointer writes it; −1 for other tokens.
int item_number(std::string_view token);

}  // namespace rehearse
