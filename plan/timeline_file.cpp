#include "plan/timeline_file.h"

#include <cmath>
#include <utility>

#include "plan/ensure.h"
#include "plan/json_document.h"

namespace rehearse {
namespace {

constexpr const char* kSchema = "timeline/1";
constexpr const char* kColumns[] = {"rank",        "stream", "tag",     "stage", "chunk",
                                    "micro_batch", "layer",  "start_s", "end_s", "bytes"};
constexpr std::size_t kColumnCount = std::size(kColumns);
/// Of a measured run of some ten thousand events a step, or a simulation of as many.
constexpr JsonLimits kLimits{.bytes = std::size_t{256} << 20, .values = 20'000'000};

template <class Items, class Text>
std::string list_text(const Items& items, const Text& text) {
  std::string joined = "[";
  for (const auto& item : items) joined += (joined.size() > 1 ? "," : "") + text(item);
  return joined + "]";
}

std::string row_text(const TimelineEvent& event) {
  std::string row = "[" + std::to_string(event.rank) + ",\"" + stream_name(event.stream) + "\"";
  for (const std::int32_t number :
       {event.tag, event.stage, event.chunk, event.micro_batch, event.layer})
    row += "," + std::to_string(number);
  for (const double number : {event.start_s, event.end_s, event.bytes})
    row += "," + number_text(number);
  return row + "]";
}

/// Reads the parts of one document; the first problem of a part ends it.
class Reader {
 public:
  Reader(const JsonDocument& document, Problems& problems)
      : document_(document), problems_(problems) {}

  std::optional<TimelineFile> read();

 private:
  bool fault(const JsonValue& at, const std::string& message, const std::string& hint = "") {
    problems_.add(document_.source.problem_at(at.offset, "", message, hint));
    return false;
  }
  const JsonValue* list(const JsonValue& object, const char* key) {
    const JsonValue* value = object.find(key);
    if (value && value->is_list()) return value;
    fault(value ? *value : object, std::string("\"") + key + "\" has to be a list");
    return nullptr;
  }
  bool number(const JsonValue& value, double& into) {
    if (!value.is_number()) return fault(value, "this has to be a number");
    into = value.number;
    return true;
  }
  bool whole(const JsonValue& value, std::int64_t least, std::int64_t most, std::int64_t& into) {
    if (value.kind != JsonKind::Integer || value.integer < least || value.integer > most)
      return fault(value, "this has to be a whole number from " + std::to_string(least) + " to " +
                              std::to_string(most));
    into = value.integer;
    return true;
  }
  bool read_columns();
  bool read_common();
  bool read_numbers(const char* key, std::int64_t least, std::vector<std::int32_t>& into);
  bool read_step(const JsonValue& value, TimelineFile& into);
  bool read_event(const JsonValue& row, Timeline& into);
  bool read_stream(const JsonValue& value, Stream& into);
  bool read_memory(const JsonValue& value, TimelineFile& into);

  const JsonDocument& document_;
  Problems& problems_;
  Timeline common_;
};

constexpr std::int64_t kMostNumber = 1 << 30;

bool Reader::read_columns() {
  const JsonValue* columns = list(document_.root, "columns");
  if (!columns) return false;
  bool same = columns->items.size() == kColumnCount;
  for (std::size_t i = 0; same && i < kColumnCount; ++i)
    same = columns->items[i].text == kColumns[i];
  return same || fault(*columns, "these are not the columns of timeline/1",
                       list_text(kColumns, [](const char* name) { return std::string(name); }));
}

bool Reader::read_numbers(const char* key, std::int64_t least, std::vector<std::int32_t>& into) {
  const JsonValue* values = list(document_.root, key);
  if (!values) return false;
  for (const JsonValue& value : values->items) {
    std::int64_t found = 0;
    if (!whole(value, least, kMostNumber, found)) return false;
    into.push_back(static_cast<std::int32_t>(found));
  }
  return true;
}

bool Reader::read_common() {
  if (!read_columns() || !read_numbers("ranks", 0, common_.ranks) ||
      !read_numbers("represented", 1, common_.represented))
    return false;
  if (common_.ranks.empty() || common_.ranks.size() != common_.represented.size())
    return fault(document_.root, "\"ranks\" and \"represented\" have to be equally long lists");
  const JsonValue* tags = list(document_.root, "tags");
  if (!tags) return false;
  for (const JsonValue& tag : tags->items) {
    if (!tag.is_text()) return fault(tag, "a tag has to be a text");
    common_.tags.push_back(tag.text);
  }
  return true;
}

bool Reader::read_stream(const JsonValue& value, Stream& into) {
  for (int i = 0; i < kStreamCount; ++i)
    if (value.is_text() && value.text == stream_name(static_cast<Stream>(i))) {
      into = static_cast<Stream>(i);
      return true;
    }
  return fault(value, "this is no stream");
}

bool Reader::read_memory(const JsonValue& value, TimelineFile& into) {
  const JsonValue *rank = value.find("rank"), *stage = value.find("stage"),
                  *parts = value.find("parts");
  if (!rank || !stage || !parts || !parts->is_object())
    return fault(value, "memory has to have \"rank\", \"stage\" and an object \"parts\"");
  RankMemory memory;
  std::int64_t numbers[2] = {};
  if (!whole(*rank, 0, kMostNumber, numbers[0]) || !whole(*stage, 0, kMostNumber, numbers[1]))
    return false;
  memory.rank = static_cast<std::int32_t>(numbers[0]);
  memory.stage = static_cast<std::int32_t>(numbers[1]);
  for (const JsonMember& part : parts->members) {
    double bytes = 0;
    if (!number(part.value, bytes)) return false;
    memory.parts.emplace_back(part.key, bytes);
  }
  into.memory.push_back(std::move(memory));
  return true;
}

bool Reader::read_event(const JsonValue& row, Timeline& into) {
  if (!row.is_list() || row.items.size() != kColumnCount)
    return fault(row, "an event has to be a list of " + std::to_string(kColumnCount) + " values");
  TimelineEvent event;
  if (!read_stream(row.items[1], event.stream)) return false;
  const std::int64_t tags = static_cast<std::int64_t>(into.tags.size());
  const struct {
    std::size_t column;
    std::int64_t least, most;
    std::int32_t* into;
  } wholes[] = {{0, 0, kMostNumber, &event.rank},         {2, 0, tags - 1, &event.tag},
                {3, 0, kMostNumber, &event.stage},        {4, -1, kMostNumber, &event.chunk},
                {5, -1, kMostNumber, &event.micro_batch}, {6, -1, kMostNumber, &event.layer}};
  for (const auto& one : wholes) {
    std::int64_t found = 0;
    if (!whole(row.items[one.column], one.least, one.most, found)) return false;
    *one.into = static_cast<std::int32_t>(found);
  }
  if (!number(row.items[7], event.start_s) || !number(row.items[8], event.end_s) ||
      !number(row.items[9], event.bytes))
    return false;
  if (event.end_s < event.start_s) return fault(row.items[8], "an event ends before it starts");
  into.events.push_back(event);
  return true;
}

bool Reader::read_step(const JsonValue& value, TimelineFile& into) {
  const JsonValue* step = value.find("step");
  const JsonValue* time = value.find("step_time_s");
  if (!step || !time) return fault(value, "a step has to have \"step\" and \"step_time_s\"");
  Timeline timeline = common_;
  std::int64_t number_of_step = 0;
  if (!whole(*step, 0, std::int64_t{1} << 52, number_of_step) ||
      !number(*time, timeline.step_time_s))
    return false;
  const JsonValue* events = list(value, "events");
  if (!events) return false;
  for (const JsonValue& row : events->items)
    if (!read_event(row, timeline)) return false;
  into.steps.push_back(number_of_step);
  into.timelines.push_back(std::move(timeline));
  return true;
}

std::optional<TimelineFile> Reader::read() {
  const JsonValue& root = document_.root;
  const JsonValue* schema = root.find("schema");
  if (!schema || schema->text != kSchema) {
    fault(schema ? *schema : root, "this is no timeline: its schema is not \"timeline/1\"",
          "`rehearse run --timeline FILE` writes one");
    return std::nullopt;
  }
  TimelineFile file;
  if (const JsonValue* made_by = root.find("made_by")) file.made_by = made_by->text;
  if (const JsonValue* plan = root.find("plan")) file.plan = plan->text;
  if (!read_common()) return std::nullopt;
  const JsonValue* steps = list(root, "steps");
  if (!steps) return std::nullopt;
  for (const JsonValue& step : steps->items)
    if (!read_step(step, file)) return std::nullopt;
  if (const JsonValue* memory = root.find("memory"); memory != nullptr) {
    if (!list(root, "memory")) return std::nullopt;
    for (const JsonValue& rank : memory->items)
      if (!read_memory(rank, file)) return std::nullopt;
  }
  if (file.steps.empty()) {
    fault(*steps, "the timeline has no steps");
    return std::nullopt;
  }
  return file;
}

}  // namespace

namespace {

std::string memory_text(const RankMemory& memory) {
  std::string text = "\n{\"rank\":" + std::to_string(memory.rank) +
                     ",\"stage\":" + std::to_string(memory.stage) + ",\"parts\":{";
  for (const auto& [name, bytes] : memory.parts)
    text += (text.back() == '{' ? "" : ",") + json_quoted(name) + ":" + number_text(bytes);
  return text + "}}";
}

}  // namespace

std::string timeline_text(const TimelineFile& file) {
  ensure(!file.timelines.empty() && file.steps.size() == file.timelines.size(),
         "a timeline file has steps, and a number for each");
  const auto number = [](std::int32_t value) { return std::to_string(value); };
  const Timeline& first = file.timelines.front();
  std::string text = std::string("{\"schema\":\"") + kSchema +
                     "\",\n\"made_by\":" + json_quoted(file.made_by) +
                     ",\"plan\":" + json_quoted(file.plan);
  text += ",\n\"ranks\":" + list_text(first.ranks, number);
  text += ",\n\"represented\":" + list_text(first.represented, number);
  text +=
      ",\n\"tags\":" + list_text(first.tags, [](const std::string& t) { return json_quoted(t); });
  text +=
      ",\n\"columns\":" + list_text(kColumns, [](const char* name) { return json_quoted(name); });
  if (!file.memory.empty()) text += ",\n\"memory\":" + list_text(file.memory, memory_text);
  text += ",\n\"steps\":[";
  for (std::size_t i = 0; i < file.steps.size(); ++i) {
    const Timeline& timeline = file.timelines[i];
    text += (i > 0 ? ",\n{" : "\n{") + std::string("\"step\":") + std::to_string(file.steps[i]) +
            ",\"step_time_s\":" + number_text(timeline.step_time_s) + ",\"events\":[";
    bool is_first = true;
    for (const TimelineEvent& event : timeline.events) {
      text += (is_first ? "\n" : ",\n") + row_text(event);
      is_first = false;
    }
    text += "]}";
  }
  return text + "]}\n";
}

std::optional<TimelineFile> read_timeline(std::string_view text, const std::string& name,
                                          Problems& problems) {
  const JsonDocument document = parse_json(text, name, problems, kLimits);
  if (!document.parsed || !problems.empty()) return std::nullopt;
  return Reader(document, problems).read();
}

}  // namespace rehearse
