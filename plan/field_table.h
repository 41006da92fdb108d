#pragma once
#include <concepts>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "plan/table.h"

namespace rehearse {

/// The spellings of an enum's values in files. Several spellings may mean one value; the first
/// is the one that is written.
template <class E>
using Names = std::vector<std::pair<std::string, E>>;

template <class E>
const std::string& name_of(const Names<E>& names, E value) {
  for (const auto& [name, named] : names)
    if (named == value) return name;
  static const std::string none = "?";
  return none;
}

/// Describes a struct once: the same table reads it from JSON (all mistakes at once, with their
/// places), writes it back, prints its JSON Schema and its reference page.
///
///     const FieldTable<Workload>& workload_table() {
///       static const FieldTable<Workload> table =
///           FieldTable<Workload>("workload", "What is to be trained.")
///               .integer("global_batch", &Workload::global_batch, {1, 1e9}, "sequences a step")
///               .required()
///               .quantity("tokens", &Workload::tokens, Dimension::Count, {0, 1e18}, "…");
///       return table;
///     }
///
/// Defaults are those of a value-initialised T. `required`, `default_note` and `omit_default`
/// change the field added last. Nested tables must live as long as the table (function-local
/// statics do). Help is one sentence without a full stop.
template <class T>
class FieldTable : public Table {
 public:
  FieldTable(std::string name, std::string help) : Table(std::move(name), std::move(help)) {
    make_default_ = [] { return std::shared_ptr<void>(std::make_shared<T>()); };
  }

  template <std::integral I>
  requires(!std::same_as<I, bool>) FieldTable& integer(std::string key, I T::*member, Range range,
                                                       std::string help) {
    Field& field = add(std::move(key), FieldKind::Integer, std::move(help));
    field.range = range;
    field.read = [member, range](const JsonValue& value, Reading& reading, void* object) {
      std::int64_t number = 0;
      if (read_integer(value, reading, range, number))
        static_cast<T*>(object)->*member = static_cast<I>(number);
    };
    field.write = [member](const void* object) {
      return JsonValue::of(static_cast<std::int64_t>(static_cast<const T*>(object)->*member));
    };
    return *this;
  }

  FieldTable& number(std::string key, double T::*member, Range range, std::string help) {
    Field& field = add(std::move(key), FieldKind::Number, std::move(help));
    field.range = range;
    field.read = [member, range](const JsonValue& value, Reading& reading, void* object) {
      read_number(value, reading, range, static_cast<T*>(object)->*member);
    };
    field.write = writer_of(member);
    return *this;
  }

  /// Range in the SI unit of the dimension.
  FieldTable& quantity(std::string key, double T::*member, Dimension dimension, Range range,
                       std::string help) {
    Field& field = add(std::move(key), FieldKind::Quantity, std::move(help));
    field.range = range;
    field.dimension = dimension;
    field.read = [=](const JsonValue& value, Reading& reading, void* object) {
      read_quantity(value, reading, dimension, range, static_cast<T*>(object)->*member);
    };
    field.write = writer_of(member);
    return *this;
  }

  FieldTable& boolean(std::string key, bool T::*member, std::string help) {
    Field& field = add(std::move(key), FieldKind::Boolean, std::move(help));
    field.read = [member](const JsonValue& value, Reading& reading, void* object) {
      read_boolean(value, reading, static_cast<T*>(object)->*member);
    };
    field.write = writer_of(member);
    return *this;
  }

  FieldTable& text(std::string key, std::string T::*member, std::string help) {
    Field& field = add(std::move(key), FieldKind::Text, std::move(help));
    field.read = [member](const JsonValue& value, Reading& reading, void* object) {
      read_text(value, reading, static_cast<T*>(object)->*member);
    };
    field.write = writer_of(member);
    return *this;
  }

  template <class E>
  FieldTable& choice(std::string key, E T::*member, const Names<E>& names, std::string help) {
    Field& field = add(std::move(key), FieldKind::Choice, std::move(help));
    for (const auto& [name, value] : names) field.choices.push_back(name);
    field.read = [member, names, texts = field.choices](const JsonValue& value, Reading& reading,
                                                        void* object) {
      std::size_t index = 0;
      if (read_choice(value, reading, texts, index))
        static_cast<T*>(object)->*member = names[index].second;
    };
    field.write = [member, names](const void* object) {
      return JsonValue::of(name_of(names, static_cast<const T*>(object)->*member));
    };
    return *this;
  }

  /// Text with a form of its own. `parse(text, target)` returns what is wrong, or nothing.
  template <class V, class Parse, class Format>
  FieldTable& spelling(std::string key, V T::*member, Parse parse, Format format,
                       std::string example, std::string help) {
    Field& field = add(std::move(key), FieldKind::Spelling, std::move(help));
    field.example = example;
    field.read = [=](const JsonValue& value, Reading& reading, void* object) {
      std::string text;
      if (!read_text(value, reading, text)) return;
      const std::string fault = parse(text, static_cast<T*>(object)->*member);
      if (!fault.empty()) reading.problem(value.offset, fault, "write " + json_quoted(example));
    };
    field.write = [member, format](const void* object) {
      return JsonValue::of(format(static_cast<const T*>(object)->*member));
    };
    return *this;
  }

  template <std::integral I>
  FieldTable& integers(std::string key, std::vector<I> T::*member, Range each, Range length,
                       std::string help) {
    Field& field = add(std::move(key), FieldKind::IntegerList, std::move(help));
    field.range = each;
    field.length = length;
    field.read = [=](const JsonValue& value, Reading& reading, void* object) {
      if (!check_list(value, reading, length)) return;
      std::vector<I> numbers;
      for (std::size_t i = 0; i < value.items.size(); ++i) {
        const Reading::Inside inside(reading, i);
        std::int64_t number = 0;
        if (read_integer(value.items[i], reading, each, number))
          numbers.push_back(static_cast<I>(number));
      }
      static_cast<T*>(object)->*member = std::move(numbers);
    };
    field.write = [member](const void* object) {
      JsonValue list = JsonValue::list();
      for (const I number : static_cast<const T*>(object)->*member)
        list.items.push_back(JsonValue::of(static_cast<std::int64_t>(number)));
      return list;
    };
    return *this;
  }

  /// A list of whole numbers, or one word instead, which sets the flag and leaves the list empty.
  template <std::integral I>
  FieldTable& integers_or(const std::string& word, bool T::*flag, std::string key,
                          std::vector<I> T::*member, Range each, Range length, std::string help) {
    integers(std::move(key), member, each, length, std::move(help));
    Field& field = fields_.back();
    field.choices = {word};
    field.read = [=, read_list = field.read](const JsonValue& value, Reading& reading,
                                             void* object) {
      const bool is_word = value.is_text();
      std::size_t index = 0;
      if (is_word && !read_choice(value, reading, {word}, index)) return;
      static_cast<T*>(object)->*flag = is_word;
      if (is_word)
        (static_cast<T*>(object)->*member).clear();
      else
        read_list(value, reading, object);
    };
    field.write = [=, write_list = field.write](const void* object) {
      return static_cast<const T*>(object)->*flag ? JsonValue::of(word) : write_list(object);
    };
    return *this;
  }

  FieldTable& texts(std::string key, std::vector<std::string> T::*member, Range length,
                    std::string help) {
    Field& field = add(std::move(key), FieldKind::TextList, std::move(help));
    field.length = length;
    field.read = [=](const JsonValue& value, Reading& reading, void* object) {
      if (!check_list(value, reading, length)) return;
      std::vector<std::string> texts;
      for (std::size_t i = 0; i < value.items.size(); ++i) {
        const Reading::Inside inside(reading, i);
        read_text(value.items[i], reading, texts.emplace_back());
      }
      static_cast<T*>(object)->*member = std::move(texts);
    };
    field.write = [member](const void* object) {
      JsonValue list = JsonValue::list();
      for (const std::string& text : static_cast<const T*>(object)->*member)
        list.items.push_back(JsonValue::of(text));
      return list;
    };
    return *this;
  }

  template <class M>
  FieldTable& object(std::string key, M T::*member, const FieldTable<M>& table, std::string help) {
    Field& field = add(std::move(key), FieldKind::Object, std::move(help));
    field.nested = &table;
    field.read = [member, &table](const JsonValue& value, Reading& reading, void* object) {
      table.read_into(value, reading, &(static_cast<T*>(object)->*member));
    };
    field.write = [member, &table](const void* object) {
      return table.write_from(&(static_cast<const T*>(object)->*member));
    };
    return *this;
  }

  template <class M>
  FieldTable& objects(std::string key, std::vector<M> T::*member, const FieldTable<M>& table,
                      Range length, std::string help) {
    Field& field = add(std::move(key), FieldKind::ObjectList, std::move(help));
    field.nested = &table;
    field.length = length;
    field.read = [=, &table](const JsonValue& value, Reading& reading, void* object) {
      if (!check_list(value, reading, length)) return;
      std::vector<M> items(value.items.size());
      for (std::size_t i = 0; i < items.size(); ++i) {
        const Reading::Inside inside(reading, i);
        table.read_into(value.items[i], reading, &items[i]);
      }
      static_cast<T*>(object)->*member = std::move(items);
    };
    field.write = [member, &table](const void* object) {
      JsonValue list = JsonValue::list();
      for (const M& item : static_cast<const T*>(object)->*member)
        list.items.push_back(table.write_from(&item));
      return list;
    };
    return *this;
  }

  /// A field that can say one thing only, such as the format's name.
  FieldTable& constant(std::string key, std::string text, std::string help) {
    Field& field = add(std::move(key), FieldKind::Choice, std::move(help));
    field.choices = {text};
    field.read = [texts = field.choices](const JsonValue& value, Reading& reading, void*) {
      std::size_t index = 0;
      read_choice(value, reading, texts, index);
    };
    field.write = [text](const void*) { return JsonValue::of(text); };
    return *this;
  }

  /// Any JSON: accepted here, read by whoever owns the table.
  FieldTable& free(std::string key, std::string example, std::string help) {
    Field& field = add(std::move(key), FieldKind::Free, std::move(help));
    field.example = std::move(example);
    return *this;
  }

  FieldTable& required() {
    fields_.back().required = true;
    return *this;
  }
  FieldTable& default_note(std::string note) {
    fields_.back().default_note = std::move(note);
    return *this;
  }
  FieldTable& omit_default() {
    fields_.back().omit_default = true;
    return *this;
  }

  /// The object may be given by a name: as bare text, or as {"base": name, …} with changes.
  template <class Find, class List>
  FieldTable& catalogue(std::string what, Find find_one, List names) {
    Origin origin;
    origin.key = "base";
    origin.help = "Name of a known " + what + ": the fields beside it change it";
    origin.what = std::move(what);
    origin.names = names;
    origin.fill = [find_one](const std::string& name, Reading&, void* object) {
      const T* found = find_one(name);
      if (found) *static_cast<T*>(object) = *found;
      return found != nullptr;
    };
    origins_.push_back(std::move(origin));
    return *this;
  }

  /// The object may start from something else, {"hugging_face": "config.json"}. `fill(text,
  /// reading, target)` reports its own problems and returns false after any.
  template <class Fill>
  FieldTable& origin(std::string key, std::string what, std::string help, Fill fill) {
    Origin origin{std::move(key), std::move(what), std::move(help), nullptr, nullptr};
    origin.fill = [fill](const std::string& text, Reading& reading, void* object) {
      return fill(text, reading, *static_cast<T*>(object));
    };
    origins_.push_back(std::move(origin));
    return *this;
  }

  /// `shape(ObjectCheck&)` says which keys may stand beside each other; always called.
  template <class Shape>
  FieldTable& shape(Shape keys_together) {
    shape_ = keys_together;
    return *this;
  }

  /// `check(T&, ObjectCheck&)` says what must hold between fields, and fills fields that follow
  /// from others; called when every field of the object was read well.
  template <class Check>
  FieldTable& check(Check whole) {
    check_ = [whole](void* object, ObjectCheck& place) { whole(*static_cast<T*>(object), place); };
    return *this;
  }

  bool read(const JsonValue& value, Reading& reading, T& target) const {
    return read_into(value, reading, &target);
  }
  JsonValue to_json(const T& object) const { return write_from(&object); }

 private:
  Field& add(std::string key, FieldKind kind, std::string help) {
    Field& field = fields_.emplace_back();
    field.key = std::move(key);
    field.kind = kind;
    field.help = std::move(help);
    return field;
  }

  template <class V>
  static std::function<JsonValue(const void*)> writer_of(V T::*member) {
    return [member](const void* object) {
      return JsonValue::of(static_cast<const T*>(object)->*member);
    };
  }
};

}  // namespace rehearse
