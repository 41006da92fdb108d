#include <cmath>

#include "plan/table.h"

namespace rehearse {
namespace {

/// A text as a regular expression that matches just it.
std::string literal_pattern(const std::string& text) {
  std::string pattern;
  for (const char letter : text) {
    if (std::string_view("\\^$.|?*+()[]{}/").find(letter) != std::string_view::npos)
      pattern += '\\';
    pattern += letter;
  }
  return pattern;
}

std::string quantity_pattern(Dimension dimension) {
  std::string units;
  for (const std::string& unit : unit_spellings(dimension))
    units.append(units.empty() ? "" : "|").append(literal_pattern(unit));
  return "^\\s*-?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)?\\s*(" + units + ")?\\s*$";
}

void add_bounds(JsonValue& schema, const Range& range) {
  constexpr double kUnbounded = std::numeric_limits<double>::max();
  if (range.minimum > -kUnbounded)
    schema.add("minimum", JsonValue::of(range.or_zero ? 0.0 : range.minimum));
  if (range.maximum < kUnbounded) schema.add("maximum", JsonValue::of(range.maximum));
}

void add_lengths(JsonValue& schema, const Range& length) {
  constexpr double kUnbounded = std::numeric_limits<double>::max();
  if (length.minimum > 0) schema.add("minItems", JsonValue::of(length.minimum));
  if (length.maximum < kUnbounded) schema.add("maxItems", JsonValue::of(length.maximum));
}

JsonValue typed(const char* type) {
  JsonValue schema = JsonValue::object();
  schema.add("type", JsonValue::of(type));
  return schema;
}

/// Of tables that change a complete object nothing is required; they have definitions of their
/// own, marked by this ending.
constexpr const char* kPartEnding = "-part";

JsonValue reference_to(const Table& table, bool part) {
  JsonValue schema = JsonValue::object();
  schema.add("$ref", JsonValue::of("#/$defs/" + table.name() + (part ? kPartEnding : "")));
  return schema;
}

JsonValue number_schema(const Field& field, const char* type) {
  JsonValue schema = typed(type);
  add_bounds(schema, field.range);
  return schema;
}

JsonValue quantity_schema(const Field& field) {
  JsonValue text = typed("string");
  text.add("pattern", JsonValue::of(quantity_pattern(field.dimension)));
  JsonValue either = JsonValue::list();
  either.items = {number_schema(field, "number"), std::move(text)};
  JsonValue schema = JsonValue::object();
  schema.add("anyOf", std::move(either));
  JsonValue examples = JsonValue::list();
  examples.items.push_back(JsonValue::of(unit_example(field.dimension)));
  schema.add("examples", std::move(examples));
  return schema;
}

JsonValue list_schema(const Field& field, JsonValue items) {
  JsonValue schema = typed("array");
  schema.add("items", std::move(items));
  add_lengths(schema, field.length);
  return schema;
}

JsonValue choice_schema(const std::vector<std::string>& choices) {
  JsonValue names = JsonValue::list();
  for (const std::string& choice : choices) names.items.push_back(JsonValue::of(choice));
  JsonValue schema = JsonValue::object();
  schema.add("enum", std::move(names));
  return schema;
}

JsonValue field_schema(const Field& field, bool part) {
  switch (field.kind) {
    case FieldKind::Integer:
      return number_schema(field, "integer");
    case FieldKind::Number:
      return number_schema(field, "number");
    case FieldKind::Quantity:
      return quantity_schema(field);
    case FieldKind::Boolean:
      return typed("boolean");
    case FieldKind::Text:
    case FieldKind::Spelling:
      return typed("string");
    case FieldKind::Choice:
      return choice_schema(field.choices);
    case FieldKind::IntegerList: {
      JsonValue list = list_schema(field, number_schema(field, "integer"));
      if (field.choices.empty()) return list;
      JsonValue either = JsonValue::list();
      either.items = {choice_schema(field.choices), std::move(list)};
      JsonValue schema = JsonValue::object();
      schema.add("anyOf", std::move(either));
      return schema;
    }
    case FieldKind::TextList:
      return list_schema(field, typed("string"));
    case FieldKind::Object:
      return reference_to(*field.nested, part);
    case FieldKind::ObjectList:
      return list_schema(field, reference_to(*field.nested, false));
    case FieldKind::Free:
      return JsonValue::object();
  }
  return JsonValue::object();
}

JsonValue properties_of(const Table& table, bool part) {
  const JsonValue defaults = table.defaults();
  JsonValue properties = JsonValue::object();
  for (const Origin& origin : table.origins()) {
    JsonValue schema = origin.names ? choice_schema(origin.names()) : typed("string");
    schema.add("description", JsonValue::of(origin.help));
    properties.add(origin.key, std::move(schema));
  }
  for (const Field& field : table.fields()) {
    JsonValue schema = field_schema(field, part || !table.origins().empty());
    schema.add("description", JsonValue::of(field.help));
    const JsonValue* value = defaults.find(field.key);
    const bool plain = value && !value->is_object();
    if (plain && !field.required && field.default_note.empty()) schema.add("default", *value);
    properties.add(field.key, std::move(schema));
  }
  return properties;
}

/// {"required": ["a"]} for each origin: any of them makes the object complete.
JsonValue has_origin(const Table& table) {
  JsonValue any = JsonValue::list();
  for (const Origin& origin : table.origins()) {
    JsonValue keys = JsonValue::list();
    keys.items.push_back(JsonValue::of(origin.key));
    JsonValue has = JsonValue::object();
    has.add("required", std::move(keys));
    any.items.push_back(std::move(has));
  }
  JsonValue condition = JsonValue::object();
  condition.add("anyOf", std::move(any));
  return condition;
}

JsonValue object_schema(const Table& table, bool part) {
  JsonValue schema = typed("object");
  schema.add("description", JsonValue::of(table.help()));
  schema.add("properties", properties_of(table, part));
  schema.add("additionalProperties", JsonValue::of(false));
  JsonValue required = JsonValue::list();
  for (const Field& field : table.fields())
    if (field.required) required.items.push_back(JsonValue::of(field.key));
  if (!required.items.empty() && !part) {
    if (table.origins().empty()) {
      schema.add("required", std::move(required));
    } else {
      JsonValue complete = JsonValue::object();
      complete.add("required", std::move(required));
      schema.add("if", has_origin(table));
      schema.add("then", JsonValue::of(true));
      schema.add("else", std::move(complete));
    }
  }
  if (table.origins().empty()) return schema;

  JsonValue name =
      table.origins()[0].names ? choice_schema(table.origins()[0].names()) : typed("string");
  JsonValue either = JsonValue::list();
  either.items = {std::move(name), std::move(schema)};
  JsonValue named = JsonValue::object();
  named.add("anyOf", std::move(either));
  return named;
}

/// Adds the definitions of all tables below, each once.
void add_definitions(const Table& table, bool part, JsonValue& definitions) {
  for (const Field& field : table.fields()) {
    if (!field.nested) continue;
    const bool changes = field.kind == FieldKind::Object && (part || !table.origins().empty());
    const std::string name = field.nested->name() + (changes ? kPartEnding : "");
    if (definitions.find(name)) continue;
    definitions.add(name, object_schema(*field.nested, changes));
    add_definitions(*field.nested, changes, definitions);
  }
}

}  // namespace

JsonValue json_schema(const Table& table, const std::string& title) {
  JsonValue schema = JsonValue::object();
  schema.add("$schema", JsonValue::of("https://json-schema.org/draft/2020-12/schema"));
  schema.add("title", JsonValue::of(title));
  JsonValue body = object_schema(table, false);
  for (JsonMember& member : body.members) schema.members.push_back(std::move(member));
  JsonValue definitions = JsonValue::object();
  add_definitions(table, false, definitions);
  schema.add("$defs", std::move(definitions));
  return schema;
}

}  // namespace rehearse
