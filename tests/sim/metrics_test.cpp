// What a device waited for, on graphs small enough to know it.
#include <cmath>

#include "sim/metrics.h"
#include "tests/catch.h"
#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

StepMetrics metrics_of(const StepGraph& graph, SimulationOptions options = {.steps = 1}) {
  return measure(graph, simulate(graph, options));
}

constexpr auto kData = static_cast<std::size_t>(CommKind::Data);
constexpr auto kTensor = static_cast<std::size_t>(CommKind::Tensor);
constexpr auto kPipeline = static_cast<std::size_t>(CommKind::Pipeline);
constexpr auto kParameter = static_cast<std::size_t>(CommKind::Parameter);

TEST_CASE("waiting for the stage before is a bubble, its transfer exposed communication") {
  GraphBuilder build;
  const std::int32_t first = build.device(0), second = build.device(1);
  const std::int32_t before = build.compute(first, 3), after = build.compute(second, 1);
  const std::int32_t hop = build.comm(CommKind::Pipeline, build.group({first, second}), 0.5);
  build.graph().tasks[hop].rank_bytes = 100;
  build.edge(before, hop);
  build.edge(hop, after);
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.step_time_s == 4.5);
  CHECK(metrics.devices[1].bubble_s == 3);
  CHECK(metrics.devices[1].exposed_s[kPipeline] == 0.5);
  CHECK(metrics.devices[1].busy_s() == 1);
  // The first stage's own send runs after its last computation, then it waits for the second.
  CHECK(metrics.devices[0].exposed_s[kPipeline] == 0.5);
  CHECK(metrics.devices[0].bubble_s == 1);
  CHECK(metrics.devices[0].bytes[kPipeline] == 100);
  CHECK(metrics.devices[1].bytes[kPipeline] == 0);
  CHECK(metrics.load_balance == Approx(3.0 / 2.0));
}

TEST_CASE("waiting for a late replica is waiting, its collective exposed for both") {
  GraphBuilder build;
  const std::int32_t quick = build.device(0, 1, 0), late = build.device(0, 1, 1);
  const std::int32_t a = build.compute(quick, 1), b = build.compute(late, 4);
  const std::int32_t reduce = build.comm(CommKind::Data, build.group({quick, late}), 2);
  const std::int32_t after_a = build.compute(quick, 1), after_b = build.compute(late, 1);
  build.edge(a, reduce);
  build.edge(b, reduce);
  build.edge(reduce, after_a);
  build.edge(reduce, after_b);
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.devices[0].waiting_s == 3);
  CHECK(metrics.devices[0].exposed_s[kData] == 2);
  CHECK(metrics.devices[1].waiting_s == 0);
  CHECK(metrics.devices[1].exposed_s[kData] == 2);
  CHECK(metrics.devices[0].hidden_s[kData] == 0);
}

TEST_CASE("a row of transfers that one computation waits for is exposed as a whole") {
  // Three reductions one after the other, the first beside the second computation.
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t group = build.group({device});
  const std::int32_t early = build.compute(device, 1), late = build.compute(device, 1);
  const std::int32_t one = build.comm(CommKind::Data, group, 2);
  const std::int32_t two = build.comm(CommKind::Data, group, 2);
  const std::int32_t norm = build.comm(CommKind::Control, group, 0.25);
  const std::int32_t optimizer = build.compute(device, 1);
  build.edge(early, one);
  build.edge(one, two);
  build.edge(late, two);
  build.edge(two, norm);
  build.edge(norm, optimizer);
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.devices[0].exposed_s[kData] == 3);
  CHECK(metrics.devices[0].hidden_s[kData] == 1);
  CHECK(metrics.devices[0].exposed_s[static_cast<std::size_t>(CommKind::Control)] == 0.25);
  CHECK(metrics.devices[0].waiting_s == 0);
}

TEST_CASE("a gather after the last computation is exposed at the end of the step") {
  GraphBuilder build;
  const std::int32_t first = build.device(0), second = build.device(1);
  const std::int32_t a = build.compute(first, 2), b = build.compute(second, 2);
  const std::int32_t brief = build.comm(CommKind::Parameter, build.group({first}), 1);
  const std::int32_t lengthy = build.comm(CommKind::Parameter, build.group({second}), 3);
  build.edge(a, brief);
  build.edge(b, lengthy);
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.devices[0].exposed_s[kParameter] == 1);
  CHECK(metrics.devices[0].bubble_s == 2);  // until the other stage's gather is done
  CHECK(metrics.devices[1].exposed_s[kParameter] == 3);
}

TEST_CASE("a folded group's collectives are exposed communication, not work") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  build.compute_segment(
      device,
      build.segment({SegmentItem{.seconds = 2},
                     SegmentItem{.seconds = 1, .bytes = 64, .work = WorkKind::TensorComm}}));
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.devices[0].busy_s() == 2);
  CHECK(metrics.devices[0].exposed_s[kTensor] == 1);
  CHECK(metrics.devices[0].hidden_s[kTensor] == 0);
  CHECK(metrics.devices[0].bytes[kTensor] == 64);
}

TEST_CASE("time in which the host had not issued the next operator is the host's") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::vector<SegmentItem> items(10, SegmentItem{.seconds = 1e-3});
  build.compute_segment(device, build.segment(items, 3e-3));
  const StepMetrics metrics = metrics_of(build.finish());
  CHECK(metrics.devices[0].busy_s() == Approx(10e-3).epsilon(1e-12));
  CHECK(metrics.devices[0].host_s == Approx(21e-3).epsilon(1e-12));
}

TEST_CASE("work lost to communication is inside the work and counted apart") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  build.compute(device, 10);
  build.comm(CommKind::Data, build.group({device}), 4);
  const StepGraph graph = build.finish();
  SimulationOptions options{.steps = 1};
  options.interference.compute_share[kData] = 0.25;
  const StepMetrics metrics = metrics_of(graph, options);
  CHECK(metrics.devices[0].busy_s() == Approx(11));
  CHECK(metrics.devices[0].slowed_s == Approx(1));
  CHECK(metrics.devices[0].hidden_s[kData] == Approx(4));
}

TEST_CASE("what runs beside the end of the step before counts at this step's end") {
  // A gather of 1.5 s after the last computation: the next step's first computation hides one
  // second of it, its second one waits for the rest. The step is 2.5 s long, and in a row of such
  // steps the device computes for 2 s of it.
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t first = build.compute(device, 1), second = build.compute(device, 1);
  const std::int32_t gather = build.comm(CommKind::Parameter, build.group({device}), 1.5);
  build.edge(second, gather);
  build.wrap(gather, second);
  const StepGraph graph = build.finish();
  const SimulationRecord record = simulate(graph, {.steps = GENERATE(2, 3)});
  REQUIRE(record.start_s[first] < record.begin_s);
  const StepMetrics metrics = measure(graph, record);
  const DeviceMetrics& only = metrics.devices[0];
  CHECK(metrics.step_time_s == Approx(2.5));
  CHECK(only.busy_s() == Approx(2));
  CHECK(only.exposed_s[kParameter] == Approx(0.5));
  CHECK(only.hidden_s[kParameter] == Approx(1));
  CHECK(only.waiting_s == Approx(0).margin(1e-12));
  // Beginning where the gather's exposed part ends: second computation, gather beside the first.
  const Timeline timeline = expand_timeline(graph, record);
  double computing_s = 0, gathering_s = 0;
  for (const TimelineEvent& event : timeline.events)
    (event.stream == Stream::Compute ? computing_s : gathering_s) += event.end_s - event.start_s;
  CHECK(computing_s == Approx(2));
  CHECK(gathering_s == Approx(1.5));
}

TEST_CASE("at a step's end a device waits for what its next step waits for") {
  // The second stage is done early; its next forward waits for the first stage's backward, last
  // of the step, and its forward of the next.
  GraphBuilder build;
  const std::int32_t first = build.device(0), second = build.device(1);
  const std::int32_t forward = build.compute(first, 1), turn = build.compute(second, 3);
  const std::int32_t backward = build.compute(first, 2);
  build.edge(forward, turn);
  build.edge(turn, backward);
  const StepGraph graph = build.finish();
  const StepMetrics metrics = measure(graph, simulate(graph, {.steps = 2}));
  CHECK(metrics.step_time_s == Approx(6));
  CHECK(metrics.devices[1].bubble_s == Approx(3));
  CHECK(metrics.devices[1].waiting_s == Approx(0).margin(1e-12));
}

TEST_CASE("a link's utilisation is its bytes over what it could carry in the step") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t link = build.link(1e9);
  const std::int32_t work = build.compute(device, 1);
  const std::int32_t comm = build.comm(CommKind::Data, build.group({device}), 0,
                                       build.pattern({{0.5, {{link, 2}}}}), 1e9);
  build.edge(work, comm);
  const StepMetrics metrics = metrics_of(build.finish());
  REQUIRE(metrics.links.size() == 1);
  CHECK(metrics.links[0].bytes == 1e9);
  CHECK(metrics.step_time_s == Approx(2));
  CHECK(metrics.links[0].utilisation == Approx(0.5));
}

TEST_CASE("a timeline shows a segment's operators where they ran") {
  GraphBuilder build;
  const std::int32_t device = build.device(3);
  build.label("gemm");
  build.label("all_reduce");
  build.compute_segment(
      device,
      build.segment(
          {SegmentItem{.seconds = 1, .label = 0, .layer = 5},
           SegmentItem{
               .seconds = 2, .bytes = 64, .label = 1, .layer = 5, .work = WorkKind::TensorComm},
           SegmentItem{.seconds = 4, .label = 0, .layer = 6}}));
  build.comm(CommKind::Data, build.group({device}), 4);
  const StepGraph graph = build.finish();
  SimulationOptions options{.steps = 1};
  options.interference.compute_share[kData] = 0.5;
  const Timeline timeline = expand_timeline(graph, simulate(graph, options));
  // 0–2 at half rate, the collective 2–4, then 4 s of work at full rate.
  REQUIRE(timeline.events.size() == 4);
  const TimelineEvent& second = timeline.events[1];
  CHECK(timeline.events[0].end_s == Approx(2));
  CHECK(second.layer == 6);
  CHECK(second.stage == 3);
  CHECK(second.start_s == Approx(4));
  CHECK(second.end_s == Approx(8));
  const TimelineEvent& collective = timeline.events[2];
  CHECK(collective.stream == Stream::Tensor);
  CHECK(collective.start_s == Approx(2));
  CHECK(collective.end_s == Approx(4));
  CHECK(collective.bytes == 64);
  CHECK(timeline.tags[collective.tag] == "all_reduce");
}

}  // namespace
}  // namespace rehearse
