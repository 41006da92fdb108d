#include <algorithm>

#include "plan/table.h"

namespace rehearse {
namespace {

std::string code(const std::string& text) { return '`' + text + '`'; }

std::string bound(double value, Dimension dimension) {
  return dimension == Dimension::Count ? format_count(value) : format_quantity(value, dimension);
}

/// " ≥ 1", " 0 … 1": the range as far as it says something.
std::string range_text(const Range& range, Dimension dimension) {
  constexpr double kUnbounded = std::numeric_limits<double>::max();
  const bool low = range.minimum > -kUnbounded, high = range.maximum < kUnbounded;
  const std::string zero = range.or_zero ? ", 0 or " : ", ";
  if (low && high)
    return zero + bound(range.minimum, dimension) + " … " + bound(range.maximum, dimension);
  if (low) return ", ≥ " + bound(range.minimum, dimension);
  if (high) return ", ≤ " + bound(range.maximum, dimension);
  return "";
}

std::string link_to(const Table& table) { return "[" + table.name() + "](#" + table.name() + ")"; }

std::string type_text(const Field& field) {
  switch (field.kind) {
    case FieldKind::Integer:
      return "whole number" + range_text(field.range, Dimension::Count);
    case FieldKind::Number:
      return "number" + range_text(field.range, Dimension::Count);
    case FieldKind::Quantity:
      return "quantity such as " + code(json_quoted(unit_example(field.dimension))) +
             range_text(field.range, field.dimension);
    case FieldKind::Boolean:
      return "true or false";
    case FieldKind::Text:
      return "text";
    case FieldKind::Spelling:
      return "text such as " + code(json_quoted(field.example));
    case FieldKind::Choice: {
      std::string choices;
      for (const std::string& choice : field.choices)
        choices += (choices.empty() ? "" : ", ") + code(json_quoted(choice));
      return choices;
    }
    case FieldKind::IntegerList:
      return (field.choices.empty() ? "" : code(json_quoted(field.choices.front())) + " or ") +
             ("list of whole numbers" + range_text(field.range, Dimension::Count));
    case FieldKind::TextList:
      return "list of texts";
    case FieldKind::Object:
      return (field.nested->origins().empty() ? "" : "name or ") + link_to(*field.nested);
    case FieldKind::ObjectList:
      return "list of " + link_to(*field.nested);
    case FieldKind::Free:
      return "such as " + code(field.example);
  }
  return "";
}

std::string default_text(const Field& field, const JsonValue& defaults) {
  if (field.required) return "*required*";
  if (!field.default_note.empty()) return field.default_note;
  const JsonValue* value = defaults.find(field.key);
  if (!value) return "";
  if (value->is_object()) return "as in its table";
  if (field.kind == FieldKind::Quantity) return format_quantity(value->number, field.dimension);
  if (value->is_text() && value->text.empty()) return "";
  if (value->is_list() && value->items.empty()) return "none";
  return code(to_text(*value, JsonLayout::Compact));
}

std::string section_of(const Table& table) {
  std::string text = "## " + table.name() + "\n\n" + table.help() + ".\n";
  if (!table.origins().empty()) {
    const Origin& named = table.origins().front();
    text += "\nMay be given by the name of a known " + named.what + ": as bare text, or as " +
            code("{\"" + named.key + "\": name, …}") + " with the fields that differ.\n";
    if (named.names) {
      text += "Known: ";
      const std::vector<std::string> names = named.names();
      for (std::size_t i = 0; i < names.size(); ++i) text += (i > 0 ? ", " : "") + code(names[i]);
      text += ".\n";
    }
  }
  const JsonValue defaults = table.defaults();
  text += "\n| field | value | default | meaning |\n|---|---|---|---|\n";
  for (const Origin& origin : table.origins())
    text += "| " + code(origin.key) + " | text | | " + origin.help + " |\n";
  for (const Field& field : table.fields())
    text += "| " + code(field.key) + " | " + type_text(field) + " | " +
            default_text(field, defaults) + " | " + field.help + " |\n";
  return text;
}

void add_tables(const Table& table, std::vector<const Table*>& tables) {
  if (std::find(tables.begin(), tables.end(), &table) != tables.end()) return;
  tables.push_back(&table);
  for (const Field& field : table.fields())
    if (field.nested) add_tables(*field.nested, tables);
}

}  // namespace

std::string markdown_reference(const Table& table) {
  std::vector<const Table*> tables;
  add_tables(table, tables);
  std::string text;
  for (const Table* each : tables) text.append(text.empty() ? "" : "\n").append(section_of(*each));
  return text;
}

}  // namespace rehearse
