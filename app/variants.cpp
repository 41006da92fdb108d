#include "app/variants.h"

#include <algorithm>
#include <set>

#include "plan/edit_distance.h"

namespace rehearse {
namespace {

/// The parts of a scenario that may vary.
constexpr const char* kVariableParts[] = {"model",  "cluster", "workload",
                                          "spread", "plan",    "plans"};

/// Lists whose values go together: one pointer, or several inside "zip".
struct Axis {
  struct Line {
    std::string pointer;
    std::uint32_t key_offset = 0;
    const JsonValue* values = nullptr;
  };
  std::vector<Line> lines;
  std::size_t length = 0;
};

/// A value as it stands in the name of a variation.
std::string value_text(const JsonValue& value) {
  constexpr std::size_t kLongest = 40;
  std::string text = value.is_text() ? value.text : to_text(value, JsonLayout::Compact);
  if (text.size() <= kLongest) return text;
  std::size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

/// The last `count` tokens of a pointer: "node/nic_bandwidth".
std::string pointer_end(const std::string& pointer, int count) {
  std::size_t begin = pointer.size();
  while (count > 0 && begin > 0 && begin != std::string::npos) {
    begin = pointer.rfind('/', begin - 1);
    if (begin == std::string::npos) return pointer;
    --count;
  }
  return begin < pointer.size() ? pointer.substr(begin + 1) : pointer;
}

/// The shortest end that tells a pointer from all others that are swept.
std::string short_name(const std::string& pointer, const std::vector<Axis>& axes) {
  const int tokens = static_cast<int>(std::count(pointer.begin(), pointer.end(), '/'));
  for (int count = 1; count <= tokens; ++count) {
    const std::string name = pointer_end(pointer, count);
    int same = 0;
    for (const Axis& axis : axes)
      for (const Axis::Line& line : axis.lines) same += pointer_end(line.pointer, count) == name;
    if (same == 1) return name;
  }
  return pointer;
}

bool read_line(const JsonMember& member, Reading& reading, Axis::Line& line) {
  const Reading::Inside inside(reading, member.key);
  if (!check_list(member.value, reading, {1, static_cast<double>(kMostVariants)})) return false;
  std::set<std::string> seen;
  for (const JsonValue& value : member.value.items)
    if (!seen.insert(to_text(value, JsonLayout::Compact)).second)
      reading.problem(value.offset, value_text(value) + " is swept twice");
  line = {member.key, member.offset, &member.value};
  return true;
}

void read_zip(const JsonMember& member, Reading& reading, std::vector<Axis>& axes) {
  const Reading::Inside inside(reading, member.key);
  if (!member.value.is_object()) {
    report_kind(member.value, reading, "an object of lists");
    return;
  }
  Axis axis;
  for (const JsonMember& inner : member.value.members) {
    Axis::Line line;
    if (!read_line(inner, reading, line)) continue;
    const std::size_t length = line.values->items.size();
    if (!axis.lines.empty() && length != axis.length) {
      reading.problem(inner.value.offset,
                      "lists that advance together must be equally long, but this has " +
                          std::to_string(length) + " items and the first " +
                          std::to_string(axis.length));
      continue;
    }
    axis.length = length;
    axis.lines.push_back(line);
  }
  if (!axis.lines.empty()) axes.push_back(std::move(axis));
}

std::vector<Axis> read_axes(const JsonValue& sweep, Reading& reading) {
  std::vector<Axis> axes;
  if (!sweep.is_object()) {
    report_kind(sweep, reading, "an object of lists",
                "write it like {\"/cluster/nodes\": [64, 128]}");
    return axes;
  }
  for (const JsonMember& member : sweep.members) {
    if (member.key == "zip") {
      read_zip(member, reading, axes);
      continue;
    }
    Axis axis;
    Axis::Line line;
    if (!read_line(member, reading, line)) continue;
    axis.length = line.values->items.size();
    axis.lines.push_back(line);
    axes.push_back(std::move(axis));
  }
  return axes;
}

/// Adds what axis `axis` sets at its position `index`.
void add_point(const std::vector<Axis>& axes, std::size_t axis, std::size_t index,
               Variation& variation) {
  for (const Axis::Line& line : axes[axis].lines) {
    const JsonValue& value = line.values->items[index];
    if (!variation.name.empty()) variation.name += ", ";
    variation.name += short_name(line.pointer, axes) + " = " + value_text(value);
    variation.settings.push_back({line.pointer, line.key_offset, value});
  }
}

void finish_point(Variation variation, std::vector<Variation>& variations) {
  variation.context = "in the sweep at " + variation.name + ": ";
  variations.push_back(std::move(variation));
}

void add_alone(const std::vector<Axis>& axes, std::vector<Variation>& variations) {
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    for (std::size_t index = 0; index < axes[axis].length; ++index) {
      if (variations.size() >= kMostVariants) return;
      Variation variation;
      add_point(axes, axis, index, variation);
      finish_point(std::move(variation), variations);
    }
  }
}

/// Every combination; the last axis varies fastest.
void add_product(const std::vector<Axis>& axes, std::size_t count,
                 std::vector<Variation>& variations) {
  for (std::size_t point = 0; point < count; ++point) {
    Variation variation;
    std::size_t block = count, rest = point;
    for (std::size_t axis = 0; axis < axes.size(); ++axis) {
      block /= axes[axis].length;
      add_point(axes, axis, rest / block, variation);
      rest %= block;
    }
    finish_point(std::move(variation), variations);
  }
}

void add_sweep(const JsonValue& sweep, Reading& reading, bool each_alone,
               std::vector<Variation>& variations) {
  const Reading::Inside inside(reading, "sweep");
  const int before = reading.problem_count();
  const std::vector<Axis> axes = read_axes(sweep, reading);
  if (axes.empty()) return;
  std::size_t count = 1;
  bool too_many = false;
  for (const Axis& axis : axes) {
    too_many = too_many || count > kMostVariants / axis.length;
    if (!too_many) count *= axis.length;
  }
  too_many = too_many || variations.size() + count + 1 > kMostVariants;
  if (too_many)
    reading.problem(sweep.offset,
                    "the sweep makes more than " + std::to_string(kMostVariants) + " variants",
                    "sweep fewer values, or let lists advance together in \"zip\"");
  if (too_many || each_alone || reading.problem_count() > before)
    add_alone(axes, variations);
  else
    add_product(axes, count, variations);
}

void add_what_ifs(const JsonValue& list, Reading& reading, std::vector<Variation>& variations) {
  const Reading::Inside in_list(reading, "what_if");
  std::set<std::string> names;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const Reading::Inside in_item(reading, i);
    const JsonValue* name = list.items[i].find("name");
    const JsonValue* set = list.items[i].find("set");
    if (!name || !name->is_text() || !set) continue;  // the table reports these
    {
      const Reading::Inside in_name(reading, "name");
      if (name->text.empty() || name->text == "as described")
        reading.problem(name->offset, "must be a name of its own");
      else if (!names.insert(name->text).second)
        reading.problem(name->offset, "two what-ifs are called " + json_quoted(name->text));
    }
    const Reading::Inside in_set(reading, "set");
    if (!set->is_object()) {
      report_kind(*set, reading, "an object",
                  "write it like {\"/cluster/node/nic_bandwidth\": \"200 Gbit/s\"}");
      continue;
    }
    if (set->members.empty()) reading.problem(set->offset, "sets nothing");
    Variation variation{name->text, "in the what-if " + json_quoted(name->text) + ": ", {}};
    for (const JsonMember& member : set->members)
      variation.settings.push_back({member.key, member.offset, member.value});
    variations.push_back(std::move(variation));
  }
}

/// Every pointer of the tree's objects; lists of plain values are passed over.
void add_tree_pointers(const JsonValue& value, const std::string& prefix,
                       std::vector<std::string>& pointers) {
  constexpr std::size_t kEnough = 5000;
  if (pointers.size() > kEnough) return;
  for (const JsonMember& member : value.members) {
    const std::string pointer = prefix + '/' + pointer_token(member.key);
    pointers.push_back(pointer);
    add_tree_pointers(member.value, pointer, pointers);
  }
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    if (!value.items[i].is_object()) continue;
    const std::string pointer = prefix + '/' + std::to_string(i);
    pointers.push_back(pointer);
    add_tree_pointers(value.items[i], pointer, pointers);
  }
}

bool may_vary(const std::string& pointer) {
  for (const std::string part : kVariableParts)
    if (pointer.rfind("/" + part + "/", 0) == 0 || pointer == "/" + part) return true;
  return false;
}

/// The pointer that was probably meant: a near one, or the only one with the same last token.
std::string pointer_hint(const std::string& pointer, const Table& table, const JsonValue& tree) {
  std::vector<std::string> all, known;
  add_tree_pointers(tree, "", all);
  table.add_pointers("", 0, all);
  const char* absent = tree.find("plans") ? "/plan" : "/plans";
  for (const std::string& each : all)
    if (may_vary(each) && each != absent && each.rfind(std::string(absent) + '/', 0) != 0)
      known.push_back(each);
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const std::string last = pointer_end(pointer, 1);
  if (last == "base")
    return "set " + json_quoted(pointer.substr(0, pointer.rfind('/'))) + " to the name instead";
  // The right field at the wrong place is more likely than a field whose name is alike.
  constexpr int kAnyDistance = 64;
  std::string meant;
  int nearest = kAnyDistance + 1;
  for (const std::string& each : known) {
    if (pointer_end(each, 1) != last || item_number(last) >= 0) continue;
    const int distance = edit_distance(pointer, each, kAnyDistance);
    if (distance < nearest) meant = each;
    nearest = std::min(nearest, distance);
  }
  if (meant.empty()) meant = did_you_mean(pointer, known);
  if (meant.empty()) return "pointers look like \"/cluster/nodes\"";
  return "did you mean \"" + meant + "\"?";
}

/// The item of a list that a token names; nullptr where there is none.
JsonValue* item_at(JsonValue& list, const std::string& token) {
  const int index = item_number(token);
  if (index < 0 || static_cast<std::size_t>(index) >= list.items.size()) return nullptr;
  return &list.items[static_cast<std::size_t>(index)];
}

}  // namespace

std::vector<Variation> read_variations(const JsonValue& scenario, Reading& reading,
                                       bool each_alone) {
  std::vector<Variation> variations;
  if (const JsonValue* list = scenario.find("what_if")) add_what_ifs(*list, reading, variations);
  if (const JsonValue* sweep = scenario.find("sweep"))
    add_sweep(*sweep, reading, each_alone, variations);
  return variations;
}

void apply_setting(const Setting& setting, const Table& table, JsonValue& tree, Reading& reading,
                   bool lenient) {
  const auto report = [&](const std::string& message) {
    const Reading::At nowhere(reading, "");
    reading.problem(setting.key_offset, message, pointer_hint(setting.pointer, table, tree));
  };
  std::vector<std::string> tokens;
  if (!split_pointer(setting.pointer, tokens) || tokens.empty())
    return report(json_quoted(setting.pointer) + " is no JSON pointer");
  if (!may_vary(setting.pointer))
    return report(json_quoted(setting.pointer) + " is nothing that can vary");

  const std::string missing = "there is no " + json_quoted(setting.pointer) + " in the scenario";
  JsonValue* place = &tree;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (place->is_list()) {
      place = item_at(*place, tokens[i]);
      if (!place) return report(missing);
      continue;
    }
    if (!place->is_object()) {
      if (!lenient) report(missing);
      return;
    }
    JsonValue* next = place->find(tokens[i]);
    if (!next) {
      const bool other_form = i == 0 && (tree.find("plans") || tokens[0] == "plans");
      if (!table.knows(tokens) || other_form) return report(missing);
      next = &place->add(tokens[i], JsonValue::object());
      next->offset = setting.value.offset;
      place->members.back().offset = setting.key_offset;
    }
    place = next;
  }
  *place = setting.value;
}

}  // namespace rehearse
