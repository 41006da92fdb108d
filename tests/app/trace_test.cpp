#include "app/trace.h"

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/app/program.h"
#include "tests/catch.h"

using namespace rehearse;
using Json = nlohmann::json;

namespace {

struct Span {
  double start_us, end_us;
};

/// Every event of a thread lies inside or beside every other, and they are in order of start.
void check_nesting(const Json& trace) {
  std::map<std::pair<int, int>, std::vector<Span>> open;
  std::map<std::pair<int, int>, double> previous;
  std::size_t events = 0;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const std::pair<int, int> thread{event["pid"], event["tid"]};
    // Whole nanoseconds in µs, so half a nanosecond tells equal from different.
    const double start = event["ts"], end = start + event["dur"].get<double>();
    auto& stack = open[thread];
    while (!stack.empty() && stack.back().end_us <= start + 5e-4) stack.pop_back();
    if (!stack.empty()) CHECK(end <= stack.back().end_us + 5e-4);
    CHECK(start >= previous[thread]);
    CHECK(event["dur"].get<double>() >= 0);
    previous[thread] = start;
    stack.push_back({start, end});
    ++events;
  }
  CHECK(events > 0);
}

Json trace_of_run(const std::string& fidelity) {
  const ChildResult result = rehearse_program({"run", test_file("small.json"), "--no-what-if",
                                               "--trace", "-", "--quiet", "--fidelity", fidelity});
  REQUIRE(result.exit_code == 0);
  return Json::parse(result.out);
}

Timeline two_streams() {
  Timeline timeline;
  timeline.step_time_s = 4e-3;
  timeline.tags = {"qkv", "ffn", "ffn dgrad", "send \"x\""};
  timeline.ranks = {0, 1};
  timeline.represented = {3, 1};
  timeline.events = {
      {.rank = 0, .tag = 0, .chunk = 0, .micro_batch = 0, .layer = 1, .start_s = 0, .end_s = 1e-3},
      {.rank = 0, .tag = 1, .chunk = 0, .micro_batch = 0, .start_s = 1e-3, .end_s = 1.5e-3},
      {.rank = 0, .tag = 2, .chunk = 0, .micro_batch = 0, .start_s = 1.5e-3, .end_s = 4e-3},
      {.rank = 0,
       .stream = Stream::PipelineForward,
       .tag = 3,
       .start_s = 1e-3,
       .end_s = 2e-3,
       .bytes = 4096},
      {.rank = 1, .tag = 0, .start_s = 2e-3, .end_s = 2.00000049e-3},
      {.rank = 1, .tag = 1, .start_s = 2.00000049e-3, .end_s = 4e-3}};
  return timeline;
}

}  // namespace

TEST_CASE("a trace names its processes and threads and keeps every event") {
  Plan plan;
  plan.dp = 2;
  const Json trace = Json::parse(chrome_trace(two_streams(), plan, 8));
  std::map<std::string, int> names;
  for (const Json& event : trace["traceEvents"]) ++names[event["name"].get<std::string>()];
  CHECK(names["process_name"] == 2);
  CHECK(names["thread_name"] == 3);
  CHECK(names["qkv"] == 2);
  CHECK(names["send \"x\""] == 1);
  CHECK(names["forward 0"] == 1);
  CHECK(names.count("backward 0") == 0);  // a pass of one operator needs no frame
  CHECK(trace["metadata"]["step_time_s"] == 4e-3);
  check_nesting(trace);
}

TEST_CASE("bytes, micro-batch and layer are arguments of their events") {
  Plan plan;
  plan.dp = 2;
  const Json trace = Json::parse(chrome_trace(two_streams(), plan, 8));
  for (const Json& event : trace["traceEvents"]) {
    if (event["name"] == "send \"x\"") CHECK(event["args"]["bytes"] == 4096);
    if (event["name"] == "qkv" && event["pid"] == 0) {
      CHECK(event["args"]["layer"] == 1);
      CHECK(event["args"]["micro_batch"] == 0);
    }
  }
}

TEST_CASE("the streams of a simulated step nest and do not overlap") {
  const std::string fidelity = GENERATE("folded", "full");
  check_nesting(trace_of_run(fidelity));
}

TEST_CASE("a trace covers the step: its last event ends with it") {
  const Json trace = trace_of_run("folded");
  double last_us = 0;
  for (const Json& event : trace["traceEvents"])
    if (event["ph"] == "X")
      last_us = std::max(last_us, event["ts"].get<double>() + event["dur"].get<double>());
  CHECK(last_us == Approx(trace["metadata"]["step_time_s"].get<double>() * 1e6).epsilon(1e-6));
}
