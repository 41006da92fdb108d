#pragma once
#include <cmath>
#include <map>
#include <regex>
#include <string>

#include "plan/json_value.h"

namespace rehearse {

/// Checks a document against a JSON Schema, as far as the schemas of this project go: $ref into
/// $defs, type, enum, anyOf, if/then/else, properties, additionalProperties, required, items,
/// minItems, maxItems, minimum, maximum, pattern. Names the first place that does not match.
class SchemaChecker {
 public:
  explicit SchemaChecker(const JsonValue& schema) : root_(schema) {}

  /// Empty if the document matches.
  std::string fault(const JsonValue& document) { return fault_at(root_, document, ""); }

 private:
  using Value = JsonValue;

  static bool is_type(const std::string& type, const Value& value) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_list();
    if (type == "string") return value.is_text();
    if (type == "boolean") return value.kind == JsonKind::Boolean;
    if (type == "number") return value.is_number();
    if (type == "integer") return value.is_number() && value.number == std::floor(value.number);
    return false;
  }

  bool matches_pattern(const std::string& pattern, const std::string& text) {
    auto [known, added] = patterns_.try_emplace(pattern);
    if (added) known->second = std::regex(pattern);
    return std::regex_search(text, known->second);
  }

  std::string fault_at(const Value& schema, const Value& value, const std::string& at) {
    if (schema.kind == JsonKind::Boolean) return schema.boolean ? "" : at + ": nothing may be here";
    for (const JsonMember& rule : schema.members) {
      const std::string found = rule_fault(schema, rule.key, rule.value, value, at);
      if (!found.empty()) return found;
    }
    return "";
  }

  std::string rule_fault(const Value& schema, const std::string& rule, const Value& wanted,
                         const Value& value, const std::string& at) {
    const auto unless = [&at, &rule](bool good) { return good ? "" : at + ": " + rule; };
    if (rule == "$ref") return fault_at(definition(wanted.text), value, at);
    if (rule == "type") return unless(is_type(wanted.text, value));
    if (rule == "enum") return unless(contains(wanted, value));
    if (rule == "anyOf") {
      for (const Value& each : wanted.items)
        if (fault_at(each, value, at).empty()) return "";
      return at + ": anyOf";
    }
    if (rule == "if") {
      const bool then = fault_at(wanted, value, at).empty();
      const Value* branch = schema.find(then ? "then" : "else");
      return branch ? fault_at(*branch, value, at) : "";
    }
    if (rule == "required") {
      for (const Value& key : wanted.items)
        if (value.is_object() && !value.find(key.text)) return at + ": required " + key.text;
      return "";
    }
    if (rule == "properties") return members_fault(schema, wanted, value, at);
    if (rule == "items") {
      for (std::size_t i = 0; i < value.items.size(); ++i) {
        const std::string found = fault_at(wanted, value.items[i], at + '/' + std::to_string(i));
        if (!found.empty()) return found;
      }
      return "";
    }
    const auto count = static_cast<double>(value.items.size());
    if (rule == "minItems") return unless(!value.is_list() || count >= wanted.number);
    if (rule == "maxItems") return unless(!value.is_list() || count <= wanted.number);
    if (rule == "minimum") return unless(!value.is_number() || value.number >= wanted.number);
    if (rule == "maximum") return unless(!value.is_number() || value.number <= wanted.number);
    if (rule == "pattern")
      return unless(!value.is_text() || matches_pattern(wanted.text, value.text));
    return "";
  }

  std::string members_fault(const Value& schema, const Value& properties, const Value& value,
                            const std::string& at) {
    const Value* others = schema.find("additionalProperties");
    for (const JsonMember& member : value.members) {
      const Value* known = properties.find(member.key);
      const std::string inside = at + '/' + member.key;
      if (!known && others && !others->boolean) return inside + ": additionalProperties";
      if (!known) continue;
      const std::string found = fault_at(*known, member.value, inside);
      if (!found.empty()) return found;
    }
    return "";
  }

  static bool contains(const Value& list, const Value& value) {
    for (const Value& each : list.items)
      if (to_text(each, JsonLayout::Compact) == to_text(value, JsonLayout::Compact)) return true;
    return false;
  }

  const Value& definition(const std::string& reference) const {
    std::vector<std::string> tokens;
    split_pointer(std::string_view(reference).substr(1), tokens);
    const Value* place = &root_;
    for (const std::string& token : tokens) {
      place = place->find(token);
      if (!place) throw std::runtime_error("the schema has no " + reference);
    }
    return *place;
  }

  const Value& root_;
  std::map<std::string, std::regex> patterns_;
};

}  // namespace rehearse
