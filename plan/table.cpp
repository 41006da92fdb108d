#include "plan/table.h"

#include "plan/edit_distance.h"

namespace rehearse {
namespace {

/// Gives a value made by the program the place of the text it stands for.
void place_at(JsonValue& value, std::uint32_t offset) {
  value.offset = offset;
  for (JsonValue& item : value.items) place_at(item, offset);
  for (JsonMember& member : value.members) {
    member.offset = offset;
    place_at(member.value, offset);
  }
}

}  // namespace

void ObjectCheck::problem(std::string_view key, std::string message, std::string hint) {
  const JsonValue* given = value(key);
  const Reading::Inside inside(reading_, key);
  reading_.problem(given ? given->offset : object_.offset, std::move(message), std::move(hint));
}

const Field* Table::find(std::string_view key) const {
  for (const Field& field : fields_)
    if (field.key == key) return &field;
  return nullptr;
}

std::vector<std::string> Table::keys() const {
  std::vector<std::string> keys;
  for (const Field& field : fields_) keys.push_back(field.key);
  for (const Origin& origin : origins_) keys.push_back(origin.key);
  return keys;
}

bool Table::read_into(const JsonValue& value, Reading& reading, void* object) const {
  const int before = reading.problem_count();
  const bool partial = reading.partial();
  if (value.is_text() && !origins_.empty()) {
    fill_from(origins_.front(), value, reading, object);
  } else if (value.is_object()) {
    bool used = false;
    read_origins(value, reading, object, used);
    if (used) reading.set_partial(true);
    read_members(value, reading, object);
    reading.set_partial(partial);
    ObjectCheck check(value, reading);
    if (shape_) shape_(check);
  } else {
    const std::string named = origins_.empty() ? "" : " or the name of a " + origins_[0].what;
    report_kind(value, reading, "an object" + named);
  }
  const bool good = reading.problem_count() == before && value.kind != JsonKind::Faulty;
  if (good && check_) {
    ObjectCheck check(value, reading);
    check_(object, check);
  }
  return good && reading.problem_count() == before;
}

bool Table::fill_from(const Origin& origin, const JsonValue& name, Reading& reading,
                      void* object) const {
  std::string text;
  if (!read_text(name, reading, text)) return false;
  const int before = reading.problem_count();
  if (origin.fill(text, reading, object)) return true;
  if (reading.problem_count() == before) {
    const std::vector<std::string> names =
        origin.names ? origin.names() : std::vector<std::string>();
    std::string hint = name_hint(text, names);
    if (hint.empty() && !names.empty()) hint = "`rehearse list` prints the names";
    reading.problem(name.offset, "no " + origin.what + " is called " + json_quoted(text),
                    std::move(hint));
  }
  return false;
}

bool Table::read_origins(const JsonValue& value, Reading& reading, void* object, bool& used) const {
  for (const Origin& origin : origins_) {
    const JsonValue* name = value.find(origin.key);
    if (!name) continue;
    const Reading::Inside inside(reading, origin.key);
    if (used)
      reading.problem(name->offset, "the " + name_ + " starts from two things at once",
                      "keep one of them");
    else
      fill_from(origin, *name, reading, object);
    used = true;
  }
  return used;
}

void Table::read_members(const JsonValue& value, Reading& reading, void* object) const {
  for (const JsonMember& member : value.members) {
    const Reading::Inside inside(reading, member.key);
    if (const Field* field = find(member.key)) {
      if (field->read) field->read(member.value, reading, object);
      continue;
    }
    bool known = false;
    for (const Origin& origin : origins_) known = known || origin.key == member.key;
    if (!known)
      reading.problem(member.offset, "unknown key " + json_quoted(member.key),
                      name_hint(member.key, keys()));
  }
  if (reading.partial()) return;
  for (const Field& field : fields_) {
    if (!field.required || value.find(field.key)) continue;
    std::string hint = field.help;
    if (!origins_.empty())
      hint += "; or start from a known " + origins_[0].what + " with \"" + origins_[0].key + "\"";
    reading.problem(value.offset, "the key " + json_quoted(field.key) + " is missing", hint);
  }
}

JsonValue Table::write_from(const void* object) const {
  JsonValue result = JsonValue::object();
  std::shared_ptr<void> unset;
  for (const Field& field : fields_) {
    if (!field.write) continue;
    JsonValue value = field.write(object);
    if (field.omit_default) {
      if (!unset) unset = make_default_();
      if (to_text(value, JsonLayout::Compact) ==
          to_text(field.write(unset.get()), JsonLayout::Compact))
        continue;
    }
    result.add(field.key, std::move(value));
  }
  return result;
}

bool Table::origin_of(const JsonValue& value, const Reading& reading, JsonValue& written) const {
  for (const Origin& origin : origins_) {
    const JsonValue* name = value.is_text() ? &value : value.find(origin.key);
    if (name && name->is_text()) {
      Problems unheard;  // the reader reports them at their place
      Reading aside(reading.source(), unheard, reading.folder());
      const std::shared_ptr<void> object = make_default_();
      if (!origin.fill(name->text, aside, object.get())) return false;
      written = write_from(object.get());
      place_at(written, name->offset);
      return true;
    }
    if (value.is_text()) return false;  // only the first origin may be bare
  }
  return false;
}

void Table::merge(JsonValue& base, const JsonValue& changes, const Reading& reading) const {
  for (const JsonMember& member : changes.members) {
    bool is_origin = false;
    for (const Origin& origin : origins_) is_origin = is_origin || origin.key == member.key;
    if (is_origin) continue;
    const Field* field = find(member.key);
    JsonValue* there = base.find(member.key);
    if (!there) {
      base.members.push_back(member);
      if (field && field->nested) {
        if (field->kind == FieldKind::Object)
          field->nested->expand(base.members.back().value, reading);
      }
      continue;
    }
    JsonValue replaced;
    const bool nested = field && field->kind == FieldKind::Object && member.value.is_object();
    if (nested && !field->nested->origin_of(member.value, reading, replaced)) {
      field->nested->merge(*there, member.value, reading);
      there->offset = member.value.offset;
    } else {
      *there = member.value;
      if (field && field->kind == FieldKind::Object) field->nested->expand(*there, reading);
    }
    for (JsonMember& placed : base.members)
      if (placed.key == member.key) placed.offset = member.offset;
  }
}

void Table::expand(JsonValue& value, const Reading& reading) const {
  JsonValue written;
  if ((value.is_text() || value.is_object()) && origin_of(value, reading, written)) {
    if (value.is_object()) {
      merge(written, value, reading);
      written.offset = value.offset;
    }
    value = std::move(written);
    return;
  }
  for (JsonMember& member : value.members) {
    const Field* field = find(member.key);
    if (!field || !field->nested) continue;
    if (field->kind == FieldKind::Object) field->nested->expand(member.value, reading);
    for (JsonValue& item : member.value.items)
      if (field->kind == FieldKind::ObjectList) field->nested->expand(item, reading);
  }
}

bool Table::knows(const std::vector<std::string>& tokens, std::size_t from) const {
  if (from >= tokens.size()) return true;
  const Field* field = find(tokens[from]);
  if (!field) return false;
  if (from + 1 == tokens.size() || field->kind == FieldKind::Free) return true;
  switch (field->kind) {
    case FieldKind::Object:
      return field->nested->knows(tokens, from + 1);
    case FieldKind::ObjectList:
      return item_number(tokens[from + 1]) >= 0 && field->nested->knows(tokens, from + 2);
    case FieldKind::IntegerList:
    case FieldKind::TextList:
      return from + 2 == tokens.size() && item_number(tokens[from + 1]) >= 0;
    default:
      return false;
  }
}

void Table::add_pointers(const std::string& prefix, int list_length,
                         std::vector<std::string>& pointers) const {
  for (const Field& field : fields_) {
    const std::string pointer = prefix + '/' + pointer_token(field.key);
    pointers.push_back(pointer);
    if (field.kind == FieldKind::Object) field.nested->add_pointers(pointer, list_length, pointers);
    if (field.kind == FieldKind::ObjectList)
      for (int i = 0; i < list_length; ++i)
        field.nested->add_pointers(pointer + '/' + std::to_string(i), list_length, pointers);
  }
}

}  // namespace rehearse
