// Timelines of real runs: what is recorded is what is written and read again.
#include "runtime/timeline_writer.h"

#include "tests/catch.h"
#include "tests/runtime/scratch_folder.h"

using namespace rehearse;

namespace {

EventLog two_steps() {
  EventLog log(3);
  log.add({.tag = "before any step"}, 0, 1);
  for (const int step : {5, 6}) {
    const double begin = 100.0 * step;
    log.begin_step(step, begin);
    log.add({.stream = Stream::Data, .tag = "gradient all-reduce", .stage = 1}, begin + 2,
            begin + 3, 4096);
    log.add({.tag = "qkv", .stage = 1, .chunk = 0, .micro_batch = 2, .layer = 7}, begin + 0.5,
            begin + 1.25);
    log.end_step(begin + 4);
  }
  return log;
}

std::string fault_of(const std::string& text) {
  Problems problems;
  const auto file = read_timeline(text, "t.json", problems);
  CHECK(file.has_value() == problems.empty());
  return problems.empty() ? "" : problems.all().front().message;
}

}  // namespace

TEST_CASE("a log has its steps' events from their begin, streams in order") {
  const TimelineFile file = two_steps().file("test", "a plan");
  CHECK(file.steps == std::vector<std::int64_t>{5, 6});
  for (const Timeline& step : file.timelines) {
    CHECK(step.step_time_s == 4);
    CHECK(step.tags == std::vector<std::string>{"gradient all-reduce", "qkv"});
    REQUIRE(step.events.size() == 2);
    CHECK(step.events[0].stream == Stream::Compute);
    CHECK(step.events[0].start_s == 0.5);
    CHECK(step.events[0].layer == 7);
    CHECK(step.events[1].bytes == 4096);
    CHECK(step.events[1].end_s == 3);
  }
}

TEST_CASE("a log keeps the latest steps only") {
  EventLog log(0, 3);
  for (int step = 0; step < 10; ++step) {
    log.begin_step(step, step);
    log.end_step(step + 0.5);
  }
  CHECK(log.file("", "").steps == std::vector<std::int64_t>{7, 8, 9});
}

TEST_CASE("a timeline is written and read again, byte for byte") {
  const ScratchFolder folder("timeline");
  EventLog log = two_steps();
  log.set_memory({.rank = 3, .stage = 1, .parts = {{"weights", 1024}, {"activations", 0.5}}});
  log.write(folder.path(), "test", "a \"plan\"");
  const std::string text = bytes_of_file(folder.file("rank-00003.timeline.json"));
  Problems problems;
  const auto file = read_timeline(text, "t.json", problems);
  CAPTURE(problems.text());
  REQUIRE(file);
  CHECK(file->plan == "a \"plan\"");
  CHECK(file->made_by == "test");
  REQUIRE(file->memory.size() == 1);
  CHECK(file->memory[0].stage == 1);
  CHECK(file->memory[0].parts.back() == std::pair<std::string, double>("activations", 0.5));
  CHECK(timeline_text(*file) == text);
}

TEST_CASE("files that are no timelines are refused with their places") {
  const std::string good = timeline_text(two_steps().file("test", "p"));
  REQUIRE(fault_of(good) == "");
  const auto with = [&](const std::string& part, const std::string& other) {
    std::string text = good;
    const std::size_t at = text.find(part);
    REQUIRE(at != std::string::npos);
    return fault_of(text.replace(at, part.size(), other));
  };
  CHECK(with("timeline/1", "timeline/2").find("no timeline") != std::string::npos);
  CHECK(with("\"micro_batch\"", "\"batch\"") == "these are not the columns of timeline/1");
  CHECK(with("\"compute\",1", "\"brain\",1") == "this is no stream");
  CHECK(with("\"compute\",1", "\"compute\",2") == "this has to be a whole number from 0 to 1");
  CHECK(with("0.5,1.25", "1.5,1.25") == "an event ends before it starts");
  CHECK(with("0.5,1.25", "0.5").find("a list of 10 values") != std::string::npos);
  CHECK(with("\"represented\":[1]", "\"represented\":[]").find("equally long") !=
        std::string::npos);
  CHECK(fault_of("[]") != "");
  for (std::size_t length = 0; length < good.size() - 2; length += 7)
    CHECK(fault_of(good.substr(0, length)) != "");
}
