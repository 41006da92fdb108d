#include "app/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "plan/json_value.h"
#include "plan/rank_map.h"

namespace rehearse {
namespace {

std::int64_t nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

/// Trace times are µs; three decimals are whole nanoseconds.
std::string microseconds(std::int64_t ns) {
  return fmt::format("{}{}.{:03}", ns < 0 ? "-" : "", std::abs(ns) / 1000, std::abs(ns) % 1000);
}

bool ends_with_any(const std::string& tag, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](const char* ending) { return tag.ends_with(ending); });
}

/// A pass of one micro-batch through one chunk, made of neighbouring operators.
struct PassKey {
  std::int32_t micro_batch = -1, chunk = -1;
  bool backward = false;
  bool operator==(const PassKey&) const = default;
};

class TraceWriter {
 public:
  TraceWriter(const Timeline& timeline, const Plan& plan, int ranks_per_node)
      : timeline_(timeline), plan_(plan), ranks_(plan), ranks_per_node_(ranks_per_node) {
    for (const std::string& tag : timeline.tags) {
      quoted_tags_.push_back(json_quoted(tag));
      is_backward_.push_back(ends_with_any(tag, {" dgrad", " wgrad", "(recomputed)", "backward"}));
    }
  }

  std::string text() {
    out_ = "{\"traceEvents\":[\n";
    for (std::size_t i = 0; i < timeline_.ranks.size(); ++i) name_process(i);
    std::size_t begin = 0;
    while (begin < timeline_.events.size()) {
      const std::size_t end = end_of_thread(begin);
      write_thread(begin, end);
      begin = end;
    }
    out_.erase(out_.size() - 2);  // the last comma and line end
    out_ += fmt::format("\n],\n\"metadata\":{{\"step_time_s\":{},\"plan\":{}}}}}\n",
                        number_text(timeline_.step_time_s), json_quoted(plan_.name));
    return std::move(out_);
  }

 private:
  void name_process(std::size_t index) {
    const std::int32_t rank = timeline_.ranks[index];
    const std::int32_t alike = timeline_.represented[index];
    const Coordinates at = ranks_.coordinates(Rank{rank});
    std::string name = fmt::format("stage {} · rank {}", at.pipeline, rank);
    name += alike > 1 ? fmt::format(" (and {} alike)", alike - 1)
                      : fmt::format(" on node {}", rank / ranks_per_node_);
    metadata("process_name", rank, 0, fmt::format("{{\"name\":{}}}", json_quoted(name)));
    // Stages one below the other, their ranks in order.
    const std::int64_t order = std::int64_t{at.pipeline} * ranks_.size() + rank;
    metadata("process_sort_index", rank, 0, fmt::format("{{\"sort_index\":{}}}", order));
  }

  void metadata(const char* name, int pid, int tid, const std::string& args) {
    fmt::format_to(std::back_inserter(out_),
                   "{{\"ph\":\"M\",\"name\":\"{}\",\"pid\":{},\"tid\":{},\"args\":{}}},\n", name,
                   pid, tid, args);
  }

  std::size_t end_of_thread(std::size_t begin) const {
    const TimelineEvent& first = timeline_.events[begin];
    std::size_t end = begin;
    while (end < timeline_.events.size() && timeline_.events[end].rank == first.rank &&
           timeline_.events[end].stream == first.stream)
      ++end;
    return end;
  }

  void write_thread(std::size_t begin, std::size_t end) {
    const TimelineEvent& first = timeline_.events[begin];
    const int tid = static_cast<int>(first.stream);
    metadata("thread_name", first.rank, tid,
             fmt::format("{{\"name\":{}}}", json_quoted(stream_name(first.stream))));
    metadata("thread_sort_index", first.rank, tid, fmt::format("{{\"sort_index\":{}}}", tid));
    for (std::size_t i = begin; i < end;) {
      const std::size_t pass_end = first.stream == Stream::Compute ? end_of_pass(i, end) : i + 1;
      if (pass_end > i + 1) write_pass(i, pass_end);
      for (; i < pass_end; ++i) write_event(timeline_.events[i]);
    }
  }

  PassKey pass_of(const TimelineEvent& event) const {
    return {event.micro_batch, event.chunk, is_backward_[static_cast<std::size_t>(event.tag)]};
  }

  std::size_t end_of_pass(std::size_t begin, std::size_t end) const {
    const PassKey pass = pass_of(timeline_.events[begin]);
    if (pass.micro_batch < 0) return begin + 1;
    std::size_t i = begin + 1;
    while (i < end && pass_of(timeline_.events[i]) == pass) ++i;
    return i;
  }

  void write_pass(std::size_t begin, std::size_t end) {
    const TimelineEvent& first = timeline_.events[begin];
    const PassKey pass = pass_of(first);
    open_event(
        json_quoted(fmt::format("{} {}", pass.backward ? "backward" : "forward", pass.micro_batch)),
        first, timeline_.events[end - 1].end_s);
    fmt::format_to(std::back_inserter(out_), "\"micro_batch\":{},\"chunk\":{}}}}},\n",
                   pass.micro_batch, pass.chunk);
  }

  void write_event(const TimelineEvent& event) {
    open_event(quoted_tags_[static_cast<std::size_t>(event.tag)], event, event.end_s);
    auto out = std::back_inserter(out_);
    fmt::format_to(out, "\"stage\":{}", event.stage);
    if (event.chunk >= 0) fmt::format_to(out, ",\"chunk\":{}", event.chunk);
    if (event.micro_batch >= 0) fmt::format_to(out, ",\"micro_batch\":{}", event.micro_batch);
    if (event.layer >= 0) fmt::format_to(out, ",\"layer\":{}", event.layer);
    if (event.bytes > 0) fmt::format_to(out, ",\"bytes\":{}", number_text(event.bytes));
    out_ += "}},\n";
  }

  /// Both ends are rounded, not the duration, so that neighbours still touch.
  void open_event(const std::string& quoted_name, const TimelineEvent& first, double end_s) {
    const std::int64_t start_ns = nanoseconds(first.start_s);
    fmt::format_to(std::back_inserter(out_),
                   "{{\"ph\":\"X\",\"name\":{},\"pid\":{},\"tid\":{},\"ts\":{},\"dur\":{},"
                   "\"args\":{{",
                   quoted_name, first.rank, static_cast<int>(first.stream), microseconds(start_ns),
                   microseconds(nanoseconds(end_s) - start_ns));
  }

  const Timeline& timeline_;
  const Plan& plan_;
  RankMap ranks_;
  int ranks_per_node_;
  std::vector<std::string> quoted_tags_;
  std::vector<bool> is_backward_;
  std::string out_;
};

}  // namespace

std::string chrome_trace(const Timeline& timeline, const Plan& plan, int ranks_per_node) {
  return TraceWriter(timeline, plan, ranks_per_node).text();
}

}  // namespace rehearse
