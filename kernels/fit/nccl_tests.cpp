// Curves of collectives from what nccl-tests prints: its table of text, or the JSON of `-J FILE`.
// Sizes are as nccl-tests counts them, which is what curves of profiles hold. Times are those of
// the out-of-place runs.

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "kernels/fit/measured_files.h"
#include "kernels/layer.h"

namespace rehearse {
namespace {

constexpr double kMicro = 1e-6;
/// Printed times have two decimals, printed rates two; beyond this the two are of other units.
constexpr double kRounding = 0.1;
/// Rates below this, in GB/s, are rounded too much to compare with.
constexpr double kComparableRate = 1;
constexpr double kLongest_s = 1e3;

/// The name of an nccl-tests program and the collective it runs.
struct TestName {
  const char* name;
  CollectiveKind kind;
};
constexpr TestName kTests[] = {{"all_reduce", CollectiveKind::AllReduce},
                               {"all_gather", CollectiveKind::AllGather},
                               {"reduce_scatter", CollectiveKind::ReduceScatter},
                               {"broadcast", CollectiveKind::Broadcast},
                               {"alltoall", CollectiveKind::AllToAll},
                               {"sendrecv", CollectiveKind::SendReceive}};

/// The test whose name stands in a text; the first of them in the order above.
const TestName* test_in(std::string_view text) {
  for (const TestName& test : kTests)
    if (text.find(test.name) != std::string_view::npos) return &test;
  return nullptr;
}

/// Points of one curve as they are found; repeated sizes are averaged.
class CurveBuilder {
 public:
  CurveBuilder(const SourceText& source, Problems& problems)
      : source_(source), problems_(problems) {}

  void problem(std::uint32_t offset, const std::string& message, const std::string& hint = "") {
    problems_.add(source_.problem_at(offset, "", message, hint));
  }

  /// `rate_gb_s`: bytes / time as the test printed it; 0: not printed.
  void add(std::uint32_t offset, double bytes, double seconds, double rate_gb_s) {
    if (bytes == 0) return;  // tests begin with empty messages where asked to
    if (!(bytes > 0)) return problem(offset, "a message has a negative size");
    if (!(seconds > 0)) return problem(offset, "a time is not positive");
    if (seconds > kLongest_s)
      return problem(offset, "a message takes longer than a quarter of an hour",
                     "times are microseconds");
    const double rate = bytes / seconds * 1e-9;
    if (rate_gb_s >= kComparableRate && std::abs(rate / rate_gb_s - 1) > kRounding)
      return problem(offset, "the time and the rate beside it disagree: another unit?",
                     "nccl-tests prints microseconds and GB/s");
    auto& [sum, count] = points_[bytes];
    sum += seconds;
    ++count;
  }

  /// Nothing where anything was wrong.
  std::optional<OperatorTable> finish(const std::string& path, const TestName* test, int ranks,
                                      const std::set<std::string>& hosts, std::size_t before) {
    if (!test)
      problem(0, "it is not told which collective was measured",
              "name the file after the test: all_reduce_perf.txt, all_gather, reduce_scatter, "
              "broadcast, alltoall, sendrecv");
    if (ranks < 2) problem(0, "it is not told among how many GPUs was measured");
    if (points_.size() < 2) problem(0, "a curve needs at least two sizes");
    if (problems_.count() > before) return std::nullopt;
    OperatorTable table{.path = path, .kind = "nccl-tests", .digest = "", .samples = {}};
    if (hosts.size() > 1) {
      table.notes.push_back("measured over " + std::to_string(hosts.size()) +
                            " nodes; curves of a profile are of one, and these are left out");
      return table;
    }
    CollectiveCurve curve{
        .collective = test->kind, .ranks = ranks, .source = "nccl-tests", .points = {}};
    for (const auto& [bytes, sum] : points_)
      curve.points.push_back({bytes, sum.first / static_cast<double>(sum.second)});
    table.collectives.push_back(std::move(curve));
    return table;
  }

 private:
  const SourceText& source_;
  Problems& problems_;
  std::map<double, std::pair<double, int>> points_;
};

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// The text table, line by line.
class TextTest {
 public:
  TextTest(const SourceText& source, Problems& problems)
      : source_(source), out_(source, problems) {}

  std::optional<OperatorTable> read(std::size_t before) {
    const std::string_view text = source_.text();
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      line_offset_ = static_cast<std::uint32_t>(begin);
      line(std::string(text.substr(begin, end - begin)));
      begin = end + 1;
    }
    if (time_column_ < 0)
      out_.problem(0, "the table has no column of times",
                   "the lines that begin with # belong to it, as nccl-tests printed them");
    const TestName* test = test_ ? test_ : test_in(source_.file());
    return out_.finish(source_.file(), test, ranks_ > 0 ? ranks_ : stated_ranks_, hosts_, before);
  }

 private:
  void line(const std::string& text) {
    const std::vector<std::string> words = words_of(text);
    if (words.empty()) return;
    if (words[0] == "#")
      comment(text, {words.begin() + 1, words.end()});
    else if (words[0].front() != '#')
      row(words);
  }

  void comment(const std::string& text, const std::vector<std::string>& words) {
    if (text.find("Collective test starting") != std::string::npos) test_ = test_in(text);
    const auto word_after = [&](const char* name) -> std::string {
      const auto at = std::find(words.begin(), words.end(), name);
      return at == words.end() || at + 1 == words.end() ? "" : *(at + 1);
    };
    if (!words.empty() && words[0] == "Rank") {
      ++ranks_;
      hosts_.insert(word_after("on"));
    }
    if (!words.empty() && words[0] == "nThread")
      stated_ranks_ = static_cast<int>(parse_number(word_after("nThread")).value_or(0) *
                                       parse_number(word_after("nGpus")).value_or(0));
    const auto time = std::find(words.begin(), words.end(), "time");
    if (!words.empty() && words[0] == "size" && time != words.end())
      time_column_ = static_cast<int>(time - words.begin());
    if (!words.empty() && words[0] == "(B)") unit_of(words);
  }

  void unit_of(const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      const bool is_time = word == "(us)" || word == "(ms)" || word == "(s)";
      if (!is_time) continue;
      const double unit_s = word == "(us)" ? kMicro : word == "(ms)" ? 1e-3 : 1;
      if (unit_s_ > 0 && unit_s != unit_s_)
        out_.problem(line_offset_, "times are given in two units");
      unit_s_ = unit_s;
    }
  }

  void row(const std::vector<std::string>& words) {
    const auto column = static_cast<std::size_t>(std::max(time_column_, 0));
    const auto size = parse_number(words[0]);
    if (!size || time_column_ < 0) return;  // launchers print lines of their own
    const auto number = [&](std::size_t at) {
      return at < words.size() ? parse_number(words[at]) : std::nullopt;
    };
    const auto time = number(column);
    if (!time) return out_.problem(line_offset_, "a row has no time");
    if (unit_s_ <= 0)
      return out_.problem(line_offset_, "the unit of times is not told",
                          "the line with (B) and (us) belongs to the table");
    if (number(column + 3).value_or(0) > 0)
      return out_.problem(line_offset_, "the collective's result was wrong for this size");
    out_.add(line_offset_, *size, *time * unit_s_, number(column + 1).value_or(0));
  }

  const SourceText& source_;
  CurveBuilder out_;
  const TestName* test_ = nullptr;
  std::uint32_t line_offset_ = 0;
  int ranks_ = 0, stated_ranks_ = 0, time_column_ = -1;
  double unit_s_ = 0;
  std::set<std::string> hosts_;
};

double number_in(const JsonValue& object, const char* key) {
  const JsonValue* value = object.find(key);
  return value && value->is_number() ? value->number : 0;
}

void read_json_result(const JsonValue& result, CurveBuilder& out) {
  const JsonValue* run = result.find("out_of_place");
  const JsonValue* size = result.find("size");
  const JsonValue* time = run ? run->find("time") : nullptr;
  if (!size || !size->is_number() || !time || !time->is_number())
    return out.problem(result.offset, "a result lacks its \"size\" or \"out_of_place\" \"time\"");
  if (number_in(*run, "nwrong") > 0)
    return out.problem(result.offset, "the collective's result was wrong for this size");
  out.add(time->offset, size->number, time->number * kMicro, number_in(*run, "alg_bw"));
}

}  // namespace

bool is_nccl_text(std::string_view text) {
  return text.substr(0, std::size_t{1} << 16).find("out-of-place") != std::string_view::npos;
}

std::optional<OperatorTable> read_nccl_text(const SourceText& source, Problems& problems) {
  return TextTest(source, problems).read(problems.count());
}

std::optional<OperatorTable> read_nccl_json(const JsonDocument& document, Problems& problems) {
  const std::size_t before = problems.count();
  CurveBuilder out(document.source, problems);
  std::set<std::string> hosts;
  int ranks = 0;
  if (const JsonValue* devices = document.root.find("devices"))
    for (const JsonValue& device : devices->items) {
      ++ranks;
      if (const JsonValue* host = device.find("hostname")) hosts.insert(host->text);
    }
  const TestName* test = nullptr;
  if (const JsonValue* arguments = document.root.find("args"))
    for (const JsonValue& argument : arguments->items)
      if (!test) test = test_in(argument.text);
  if (!test) test = test_in(document.source.file());
  for (const JsonValue& result : document.root.find("results")->items)
    read_json_result(result, out);
  return out.finish(document.source.file(), test, ranks, hosts, before);
}

}  // namespace rehearse
