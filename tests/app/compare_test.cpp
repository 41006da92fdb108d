// Predicted beside measured: parts, medians, and what is said where files do not fit together.
#include <nlohmann/json.hpp>

#include "app/timeline_comparison.h"
#include "tests/app/program.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// A rank's step: 2 s of "qkv", then a reduction of `reduce_s`, in a step of 4 s and it.
Timeline step_of(int rank, int alike, double reduce_s) {
  return {.step_time_s = 4 + reduce_s,
          .tags = {"qkv", "gradient all-reduce"},
          .ranks = {rank},
          .represented = {alike},
          .events = {{.rank = rank, .tag = 0, .start_s = 0, .end_s = 2},
                     {.rank = rank,
                      .stream = Stream::Data,
                      .tag = 1,
                      .start_s = 2,
                      .end_s = 2 + reduce_s,
                      .bytes = 1000}}};
}

TimelineFile predicted_pair() {
  return {.made_by = "rehearse run", .plan = "p", .steps = {0}, .timelines = {step_of(0, 2, 1)}};
}

/// Two ranks of three steps; each has one step that was disturbed.
std::vector<TimelineFile> measured_pair() {
  return {{.made_by = "t",
           .plan = "p",
           .steps = {0, 1, 2},
           .timelines = {step_of(0, 1, 9), step_of(0, 1, 1.5), step_of(0, 1, 1.25)}},
          {.made_by = "t",
           .plan = "p",
           .steps = {0, 1, 2},
           .timelines = {step_of(1, 1, 2.5), step_of(1, 1, 2.5), step_of(1, 1, 70)}}};
}

}  // namespace

TEST_CASE("parts are means over ranks of medians over steps, the step that of the slowest rank") {
  const TimelineComparison result = compare_timelines(predicted_pair(), measured_pair());
  CHECK(result.predicted_ranks == 2);
  CHECK(result.measured_ranks == 2);
  CHECK(result.steps == 3);
  CHECK(result.predicted_step_s == 5);
  CHECK(result.measured_step_s == 6.5);
  REQUIRE(result.parts.size() == 2);
  CHECK(result.parts[0].tag == "qkv");
  CHECK(result.parts[0].predicted_s == 2);
  CHECK(result.parts[0].measured_s == 2);
  CHECK(result.parts[1].predicted_s == 1);
  CHECK(result.parts[1].measured_s == 2);
  CHECK(result.parts[1].predicted_bytes == 1000);
  CHECK(result.parts[1].measured_bytes == 1000);
}

TEST_CASE("a part that only one side has stays, with nothing on the other") {
  auto measured = measured_pair();
  for (TimelineFile& file : measured)
    for (Timeline& step : file.timelines) step.tags[0] = "rope";
  const TimelineComparison result = compare_timelines(predicted_pair(), measured);
  REQUIRE(result.parts.size() == 3);
  CHECK(result.parts[0].measured_s == 0);
  CHECK(result.parts[1].tag == "rope");
  CHECK(result.parts[1].predicted_s == 0);
}

TEST_CASE("the memory of each stage's fullest rank is compared by what both sides tell") {
  auto predicted = predicted_pair();
  predicted.memory = {{0, 0, {{"weights", 100}, {"activations", 60}, {"framework", 500}}},
                      {2, 1, {{"weights", 80}, {"activations", 10}}}};
  auto measured = measured_pair();
  measured[0].memory = {{0, 0, {{"weights", 100}, {"activations", 40}}}};
  measured[1].memory = {{1, 0, {{"weights", 100}, {"activations", 50}, {"idle buffers", 10}}}};
  const TimelineComparison result = compare_timelines(predicted, measured);
  REQUIRE(result.memory.size() == 4);
  CHECK(result.memory[1].measured_bytes == 50);
  CHECK(result.memory[2].measured_bytes == 0);
  CHECK(result.memory[3].part == "idle buffers");
  // Nobody measured the framework; nobody predicted idle buffers, which count all the same.
  CHECK(worst_memory(result) == std::pair(160.0, 160.0));
  CHECK(worst_memory(compare_timelines(predicted_pair(), measured)) == std::pair(0.0, 0.0));
}

TEST_CASE("a simulated timeline compared with itself differs nowhere") {
  const TemporaryFolder folder;
  const std::string timeline = folder.file("predicted.json");
  const ChildResult run =
      rehearse_program({"run", test_file("small.json"), "-q", "--timeline", timeline});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  const ChildResult same = rehearse_program({"compare", timeline, timeline, "--json"});
  CAPTURE(same.err);
  REQUIRE(same.exit_code == 0);
  const auto document = nlohmann::json::parse(same.out);
  CHECK(document["schema"] == "comparison/1");
  CHECK(document["error"] == 0);
  CHECK(document["ranks"] == 16);
  CHECK(document["parts"].size() > 10);
  for (const auto& part : document["parts"]) CHECK(part["predicted_s"] == part["measured_s"]);
}

TEST_CASE("compare lays a folder of ranks beside a prediction, as a table and as one trace") {
  const TemporaryFolder folder;
  write_text(folder.file("predicted.json"), timeline_text(predicted_pair()));
  const auto measured = measured_pair();
  write_text(folder.file("rank-00000.timeline.json"), timeline_text(measured[0]));
  write_text(folder.file("rank-00001.timeline.json"), timeline_text(measured[1]));
  const std::filesystem::path at = folder.file("");
  const std::string trace = folder.file("trace");
  const ChildResult result =
      rehearse_program({"compare", folder.file("predicted.json"), at.string(), "--trace", trace});
  CAPTURE(result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(result.out.find("Step predicted 5 s, measured 6.5 s: -23.1 %") == 0);
  CHECK(result.out.find("gradient all-reduce") != std::string::npos);
  CHECK(result.out.find("-50.0") != std::string::npos);
  CHECK(result.err.empty());
  const auto document = nlohmann::json::parse(text_of_file(trace));
  int processes = 0, events = 0;
  for (const auto& event : document["traceEvents"]) {
    processes += event["name"] == "process_name";
    events += event["ph"] == "X";
  }
  CHECK(processes == 3);
  CHECK(events == 6);
}

TEST_CASE("compare says what is wrong with files that are no timelines") {
  const TemporaryFolder folder;
  const std::string predicted = folder.file("p.json");
  write_text(predicted, timeline_text(predicted_pair()));
  const ChildResult scenario = rehearse_program({"compare", predicted, test_file("small.json")});
  CHECK(scenario.exit_code == 2);
  CHECK(scenario.err.find("this is no timeline") != std::string::npos);
  const ChildResult empty = rehearse_program(
      {"compare", predicted, std::filesystem::path(predicted).parent_path().string()});
  CHECK(empty.exit_code == 1);
  CHECK(empty.err.find("no rank left a") != std::string::npos);
}
