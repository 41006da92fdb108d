#include "plan/json_document.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "plan/json_syntax.h"

namespace rehearse {
namespace {

using Json = nlohmann::json;

/// Problems of one document beyond this many are not worth reading.
constexpr std::size_t kMostProblems = 100;

/// A number that JSON cannot write or a double cannot hold. It is reported, then read as 0 and
/// marked Faulty, so that the rest of the document is still checked.
struct BadNumber {
  std::size_t offset = 0;
  std::size_t length = 0;
  std::string pointer;
};

/// Receives the parser's events and builds the tree with the places of keys and values. The
/// parser says what it found but not where a token began, so the builder follows it through the
/// text token by token.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(std::string_view text, const SourceText& source, const JsonLimits& limits,
              const std::vector<BadNumber>& bad_numbers)
      : text_(text), source_(source), limits_(limits), bad_numbers_(bad_numbers) {}

  bool null() override { return add(JsonValue()); }
  bool boolean(bool value) override { return add(JsonValue::of(value)); }
  bool number_integer(std::int64_t value) override { return add(JsonValue::of(value)); }
  bool number_unsigned(std::uint64_t value) override {
    // Integers beyond 64 bits with sign are kept as numbers; a reader of integers refuses them.
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return number_float(static_cast<double>(value), "");
    return add(JsonValue::of(static_cast<std::int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override {
    JsonValue number;
    number.kind = JsonKind::Number;
    number.number = value;
    return add(std::move(number));
  }
  bool string(std::string& value) override { return add(JsonValue::of(std::move(value))); }
  bool binary(Json::binary_t&) override { return false; }

  bool start_object(std::size_t) override { return add(JsonValue::object()); }
  bool start_array(std::size_t) override { return add(JsonValue::list()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    const std::size_t offset = take_token();
    Open& open = open_.back();
    open.value->members.push_back({name, static_cast<std::uint32_t>(offset), JsonValue()});
    if (!open.keys.insert(name).second) {
      open.doubled.push_back(open.value->members.size() - 1);
      report(offset, pointer(0), "the key " + json_quoted(name) + " is given twice",
             "remove one of them: only one can count");
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    constexpr int kNumberOverflow = 406;  // documented id of nlohmann's out_of_range error
    const std::size_t token = next_token(text_, cursor_);
    std::size_t length = unwritable_number(text_, token);
    if (error.id == kNumberOverflow) length = token_end(text_, token) - token;
    if (length > 0) {
      bad_number_ = {token, length, pointer(1)};
      return false;
    }
    const std::size_t open =
        open_.empty() ? std::string_view::npos : std::size_t{open_.back().value->offset};
    const SyntaxFault fault =
        syntax_fault(text_, token, position > 0 ? position - 1 : 0, open, error.what());
    report(fault.offset, "", fault.message, fault.hint);
    return false;
  }

  /// A NUL byte ends the parser's input: what follows would be passed over in silence.
  bool reached_end() {
    const std::size_t rest = next_token(text_, cursor_);
    if (rest >= text_.size()) return true;
    report(rest, "", "there is a NUL byte here, behind which nothing is read", "remove it");
    return false;
  }

  /// The number at which parsing stopped; of length 0 if that was not the reason.
  BadNumber bad_number() const { return bad_number_; }
  JsonValue take_root() { return std::move(root_); }
  const std::vector<Problem>& problems() const { return problems_; }

 private:
  struct Open {
    JsonValue* value;
    std::set<std::string> keys;
    std::vector<std::size_t> doubled;  ///< indices of members whose key came before
  };

  std::size_t take_token() {
    const std::size_t start = next_token(text_, cursor_);
    cursor_ = token_end(text_, start);
    return start;
  }

  bool add(JsonValue value) {
    const std::size_t start = take_token();
    value.offset = static_cast<std::uint32_t>(start);
    const bool opens = value.is_list() || value.is_object();
    if (++values_ > limits_.values) {
      report(start, "", "the document has more than " + std::to_string(limits_.values) + " values",
             "a document of this kind needs far fewer");
      return false;
    }
    if (opens && static_cast<int>(open_.size()) >= limits_.depth) {
      report(start, "",
             "values are nested deeper than " + std::to_string(limits_.depth) + " levels",
             "no field needs that many");
      return false;
    }
    for (const BadNumber& bad : bad_numbers_)
      if (bad.offset == start) value.kind = JsonKind::Faulty;
    JsonValue* place = &root_;
    if (!open_.empty()) {
      JsonValue& parent = *open_.back().value;
      place = parent.is_object() ? &parent.members.back().value : &parent.items.emplace_back();
    }
    *place = std::move(value);
    if (opens) open_.push_back({place, {}, {}});
    return true;
  }

  /// Of double keys the first stays; both could not have one pointer.
  bool close() {
    take_token();
    Open& open = open_.back();
    auto& members = open.value->members;
    for (auto index = open.doubled.rbegin(); index != open.doubled.rend(); ++index)
      members.erase(members.begin() + static_cast<std::ptrdiff_t>(*index));
    open_.pop_back();
    return true;
  }

  /// Of the value or key at hand, or of the item that comes next in its list.
  std::string pointer(std::size_t upcoming) const {
    std::string pointer;
    for (const Open& open : open_) {
      const JsonValue& value = *open.value;
      const bool innermost = &open == &open_.back();
      if (value.is_object() && value.members.empty()) break;
      pointer += '/';
      pointer += value.is_object()
                     ? pointer_token(value.members.back().key)
                     : std::to_string(value.items.size() + (innermost ? upcoming : 0) - 1);
    }
    return pointer;
  }

  void report(std::size_t offset, std::string at, std::string message, std::string hint) {
    if (problems_.size() >= kMostProblems) return;
    problems_.push_back(source_.problem_at(static_cast<std::uint32_t>(offset), std::move(at),
                                           std::move(message), std::move(hint)));
  }

  std::string_view text_;
  const SourceText& source_;
  const JsonLimits& limits_;
  const std::vector<BadNumber>& bad_numbers_;
  JsonValue root_;
  std::vector<Open> open_;
  std::vector<Problem> problems_;
  BadNumber bad_number_;
  std::size_t cursor_ = 0;
  std::size_t values_ = 0;
};

JsonDocument refused(SourceText source, Problems& problems, std::string message, std::string hint) {
  problems.add({source.file(), 0, 0, "", std::move(message), std::move(hint), ""});
  JsonDocument document{std::move(source), {}, false};
  document.root.kind = JsonKind::Faulty;
  return document;
}

}  // namespace

JsonDocument parse_json(std::string_view text, std::string file, Problems& problems,
                        const JsonLimits& limits) {
  if (text.size() > std::min(limits.bytes, std::size_t{1} << 31))
    return refused(SourceText(std::move(file), ""), problems,
                   "the document has more than " + std::to_string(limits.bytes) + " bytes",
                   "a document of this kind needs far fewer");
  JsonDocument document{SourceText(std::move(file), text), {}, false};
  document.root.kind = JsonKind::Faulty;

  // Each round stops at the first number that cannot be read and mends it for the next.
  constexpr std::size_t kMostBadNumbers = 20;
  std::string mended(text);
  std::vector<BadNumber> bad_numbers;
  for (;;) {
    TreeBuilder builder(mended, document.source, limits, bad_numbers);
    const bool good = Json::sax_parse(mended.begin(), mended.end(), &builder,
                                      Json::input_format_t::json, true, true) &&
                      builder.reached_end();
    const BadNumber bad = builder.bad_number();
    if (bad.length > 0) {
      const std::string number(text.substr(bad.offset, std::min<std::size_t>(bad.length, 40)));
      problems.add(document.source.problem_at(static_cast<std::uint32_t>(bad.offset), bad.pointer,
                                              number + " is not a finite number",
                                              "numbers reach up to about 1.8e308"));
      mended.replace(bad.offset, bad.length, bad.length, ' ');
      mended[bad.offset] = '0';
      bad_numbers.push_back(bad);
      if (bad_numbers.size() < kMostBadNumbers) continue;
    }
    for (const Problem& problem : builder.problems()) problems.add(problem);
    if (good) {
      document.root = builder.take_root();
      document.parsed = true;
    }
    return document;
  }
}

JsonDocument parse_json_file(const std::string& path, Problems& problems,
                             const JsonLimits& limits) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (file) {
    text.resize(limits.bytes + 1);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  }
  if (!file.is_open() || file.bad())
    return refused(SourceText(path, ""), problems, "the file cannot be read",
                   "is the name right, and may it be read?");
  return parse_json(text, path, problems, limits);
}

}  // namespace rehearse
