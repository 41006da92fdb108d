#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "plan/json_value.h"
#include "plan/reading.h"
#include "plan/units.h"

namespace rehearse {

class Table;

enum class FieldKind : std::uint8_t {
  Integer,
  Number,
  Quantity,
  Boolean,
  Text,
  Choice,
  Spelling,  ///< text with a form of its own ("tp-cp-dp-pp")
  IntegerList,
  TextList,
  Object,
  ObjectList,
  Free,  ///< any JSON, read by the owner of the table
};

/// What a number may be, ends included.
struct Range {
  double minimum = -std::numeric_limits<double>::max();
  double maximum = std::numeric_limits<double>::max();
  bool or_zero = false;  ///< 0 too: "does not have it"
};

/// One field of a table: what people see of it, and how it is read and written. `read` and
/// `write` get a pointer to the struct the table describes.
struct Field {
  std::string key;
  FieldKind kind = FieldKind::Text;
  std::string help;
  bool required = false;
  bool omit_default = false;  ///< not written where it has its default
  std::string default_note;   ///< said in place of the default value
  Range range;                ///< of the number, or of each in a list
  Range length;               ///< of a list
  Dimension dimension = Dimension::Count;
  std::vector<std::string> choices;
  std::string example;            ///< of a Spelling
  const Table* nested = nullptr;  ///< of Object and ObjectList
  std::function<void(const JsonValue&, Reading&, void*)> read;
  std::function<JsonValue(const void*)> write;
};

/// Another way to say an object: by a name or a file. `{"base": "dgx-h100", …}` starts from it
/// and changes what else is given; the first origin of a table may be written as bare text.
struct Origin {
  std::string key;   ///< "base"
  std::string what;  ///< "node", for messages
  std::string help;
  std::function<std::vector<std::string>()> names;  ///< empty function: not a closed list
  /// Fills the struct; false where the text names nothing. It may report problems of its own.
  std::function<bool(const std::string&, Reading&, void*)> fill;
};

/// What a check of a whole object may ask and say.
class ObjectCheck {
 public:
  ObjectCheck(const JsonValue& object, Reading& reading) : object_(object), reading_(reading) {}
  /// Whether the file gives the field itself.
  bool has(std::string_view key) const { return value(key) != nullptr; }
  const JsonValue* value(std::string_view key) const {
    return object_.is_object() ? object_.find(key) : nullptr;
  }
  /// A problem at the field, or at the object where the file does not give the field.
  void problem(std::string_view key, std::string message, std::string hint = "");

 private:
  const JsonValue& object_;
  Reading& reading_;
};

/// The fields of one kind of object, without its type: reads, writes, and describes it.
/// FieldTable<T> (plan/field_table.h) is what people build.
class Table {
 public:
  const std::string& name() const { return name_; }
  const std::string& help() const { return help_; }
  const std::vector<Field>& fields() const { return fields_; }
  const std::vector<Origin>& origins() const { return origins_; }
  const Field* find(std::string_view key) const;

  /// Reads the object (or its name) into `object`; every mistake is reported. False if any was.
  bool read_into(const JsonValue& value, Reading& reading, void* object) const;
  JsonValue write_from(const void* object) const;
  /// What a file that gives nothing means.
  JsonValue defaults() const { return write_from(make_default_().get()); }

  /// Replaces names by what they stand for, here and in nested objects; what cannot be found
  /// stays for the reader to report. New values stand at the place of the name.
  void expand(JsonValue& value, const Reading& reading) const;

  /// Whether the pointer's tokens lead to a field that a file could have.
  bool knows(const std::vector<std::string>& tokens, std::size_t from = 0) const;
  /// Pointers of all fields below `prefix`; of lists the first `list_length` items.
  void add_pointers(const std::string& prefix, int list_length,
                    std::vector<std::string>& pointers) const;

 protected:
  Table(std::string name, std::string help) : name_(std::move(name)), help_(std::move(help)) {}
  ~Table() = default;
  Table(const Table&) = default;
  Table(Table&&) = default;

  std::string name_, help_;
  std::vector<Field> fields_;
  std::vector<Origin> origins_;
  std::function<void(ObjectCheck&)> shape_;
  std::function<void(void*, ObjectCheck&)> check_;
  /// A struct with its defaults (owned), to write origins from and to print defaults.
  std::function<std::shared_ptr<void>()> make_default_;

 private:
  bool read_origins(const JsonValue& value, Reading& reading, void* object, bool& used) const;
  bool fill_from(const Origin& origin, const JsonValue& name, Reading& reading, void* object) const;
  void read_members(const JsonValue& value, Reading& reading, void* object) const;
  std::vector<std::string> keys() const;
  bool origin_of(const JsonValue& value, const Reading& reading, JsonValue& written) const;
  void merge(JsonValue& base, const JsonValue& changes, const Reading& reading) const;
};

/// Readers of plain values; they report and leave the target as it is where the value is wrong.
bool read_integer(const JsonValue& value, Reading& reading, const Range& range,
                  std::int64_t& target);
bool read_number(const JsonValue& value, Reading& reading, const Range& range, double& target);
bool read_quantity(const JsonValue& value, Reading& reading, Dimension dimension,
                   const Range& range, double& target);
bool read_boolean(const JsonValue& value, Reading& reading, bool& target);
bool read_text(const JsonValue& value, Reading& reading, std::string& target);
/// The index of the text among the names.
bool read_choice(const JsonValue& value, Reading& reading, const std::vector<std::string>& names,
                 std::size_t& target);
/// True where it is a list of an allowed length, else reported.
bool check_list(const JsonValue& value, Reading& reading, const Range& length);
void report_kind(const JsonValue& value, Reading& reading, const std::string& expected,
                 std::string hint = "");

/// JSON Schema (draft 2020-12) of the table; nested tables become $defs.
JsonValue json_schema(const Table& table, const std::string& title);
/// Markdown: a section and a table of fields for it and for each nested table.
std::string markdown_reference(const Table& table);

}  // namespace rehearse
