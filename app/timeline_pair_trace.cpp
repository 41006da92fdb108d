#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <set>

#include "app/timeline_comparison.h"
#include "plan/json_value.h"

namespace rehearse {
namespace {

/// Writes timelines as processes of one Chrome trace, in the order they come.
class PairTrace {
 public:
  void add(const char* origin, const Timeline& timeline) {
    std::set<std::int32_t> ranks(timeline.ranks.begin(), timeline.ranks.end());
    for (const std::int32_t rank : ranks) {
      const int pid = ++processes_;
      metadata("process_name", pid, 0, fmt::format("\"name\":\"{} rank {}\"", origin, rank));
      metadata("process_sort_index", pid, 0, fmt::format("\"sort_index\":{}", pid));
      std::set<Stream> streams;
      for (const TimelineEvent& event : timeline.events) {
        if (event.rank != rank) continue;
        if (streams.insert(event.stream).second)
          metadata("thread_name", pid, static_cast<int>(event.stream),
                   fmt::format("\"name\":\"{}\"", stream_name(event.stream)));
        write(pid, event, timeline.tags[static_cast<std::size_t>(event.tag)]);
      }
    }
  }

  std::string text() && { return "{\"traceEvents\":[\n" + events_ + "\n]}\n"; }

 private:
  void begin_event() { events_ += events_.empty() ? "" : ",\n"; }

  void metadata(const char* name, int pid, int tid, const std::string& args) {
    begin_event();
    fmt::format_to(std::back_inserter(events_),
                   "{{\"ph\":\"M\",\"name\":\"{}\",\"pid\":{},\"tid\":{},\"args\":{{{}}}}}", name,
                   pid, tid, args);
  }

  /// Both ends are rounded to whole nanoseconds, not the duration, so that neighbours still touch.
  void write(int pid, const TimelineEvent& event, const std::string& tag) {
    const double start_ns = std::round(event.start_s * 1e9), end_ns = std::round(event.end_s * 1e9);
    begin_event();
    fmt::format_to(std::back_inserter(events_),
                   "{{\"ph\":\"X\",\"name\":{},\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f},"
                   "\"args\":{{\"stage\":{},\"chunk\":{},\"micro_batch\":{},\"layer\":{},"
                   "\"bytes\":{}}}}}",
                   json_quoted(tag), pid, static_cast<int>(event.stream), start_ns / 1e3,
                   (end_ns - start_ns) / 1e3, event.stage, event.chunk, event.micro_batch,
                   event.layer, number_text(event.bytes));
  }

  std::string events_;
  int processes_ = 0;
};

}  // namespace

std::string timeline_pair_trace(const TimelineFile& predicted,
                                const std::vector<TimelineFile>& measured) {
  PairTrace trace;
  trace.add("predicted", predicted.timelines.back());
  for (const TimelineFile& file : measured) trace.add("measured", file.timelines.back());
  return std::move(trace).text();
}

}  // namespace rehearse
