// The executor against closed forms: steps in a row, pipelines, hosts, interference.
#include <algorithm>
#include <vector>

#include "sim/simulate.h"
#include "tests/catch.h"
#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

SimulationOptions steps(int count) {
  SimulationOptions options;
  options.steps = count;
  return options;
}

double step_s(const SimulationRecord& record) { return record.end_s - record.begin_s; }

TEST_CASE("a chain runs back to back, and the next step begins where it ends") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  build.compute(device, 1);
  build.compute(device, 2);
  const StepGraph graph = build.finish();
  const SimulationRecord one = simulate(graph, steps(1));
  CHECK(one.begin_s == 0);
  CHECK(one.end_s == 3);
  CHECK(one.last_predecessor == std::vector<std::int32_t>{-1, 0});
  const SimulationRecord third = simulate(graph, steps(3));
  CHECK(third.begin_s == 6);
  CHECK(third.start_s == std::vector<double>{6, 7});
  CHECK(third.finish_s == std::vector<double>{7, 9});
  CHECK(third.last_predecessor == std::vector<std::int32_t>{-2 - 1, 0});
  CHECK(third.previous_finish_s == std::vector<double>{6});
}

TEST_CASE("a transfer of one step runs beside the next until its wrap successor needs it") {
  // Two computations a step; a gather of 2 s that starts after the second must be there before
  // the next step's second. The step is 1 + 1 + the second of the gather that nothing hides.
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t first = build.compute(device, 1), second = build.compute(device, 1);
  const std::int32_t gather = build.comm(CommKind::Parameter, build.group({device}), 2);
  build.edge(second, gather);
  build.wrap(gather, second);
  const StepGraph graph = build.finish();
  const SimulationRecord record = simulate(graph, steps(4));
  CHECK(step_s(record) == Approx(3));
  CHECK(record.last_predecessor[second] == -2 - gather);
  // The reported step's first computation began beside the gather of the step before.
  CHECK(record.start_s[first] < record.begin_s);
  CHECK(step_s(simulate(graph, steps(1))) == Approx(4));
}

TEST_CASE("a step may be signalled long before the step before it is over") {
  // Device 0 is three steps ahead of device 1, which nothing ties to it.
  GraphBuilder build;
  const std::int32_t quick = build.device(), slow = build.device();
  const std::int32_t a = build.compute(quick, 1), b = build.compute(slow, 10);
  const SimulationRecord record = simulate(build.finish(), steps(5));
  CHECK(record.start_s[a] == 4);
  CHECK(record.start_s[b] == 40);
  CHECK(record.begin_s == 40);
  CHECK(record.end_s == 50);
}

TEST_CASE("tasks that wait for nothing begin with their step") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  build.compute(device, 3);
  const std::int32_t lone = build.comm(CommKind::Control, build.group({device}), 1);
  const SimulationRecord record = simulate(build.finish(false), steps(2));
  CHECK(record.start_s == std::vector<double>{3, 3});
  CHECK(record.last_predecessor[lone] == -1);
}

/// Forward and backward of every micro-batch on p stages, in the order given per stage: ≥ 0 is
/// the forward of that micro-batch, < 0 the backward of −1 − it. Transfers take `hop_s`.
StepGraph pipeline(const std::vector<std::vector<int>>& order, double forward_s, double backward_s,
                   double hop_s) {
  GraphBuilder build;
  const int stages = static_cast<int>(order.size());
  std::vector<std::vector<std::int32_t>> forward(order.size()), backward(order.size());
  for (int s = 0; s < stages; ++s) {
    build.device(s);
    forward[s].resize(order[s].size() / 2);
    backward[s].resize(order[s].size() / 2);
    for (const int action : order[s]) {
      const std::int32_t task = build.compute(s, action >= 0 ? forward_s : backward_s);
      (action >= 0 ? forward[s][action] : backward[s][-1 - action]) = task;
    }
  }
  const auto send = [&](int from, std::int32_t after, int to, std::int32_t before) {
    const std::int32_t comm = build.comm(CommKind::Pipeline, build.group({from, to}), hop_s);
    build.edge(after, comm);
    build.edge(comm, before);
  };
  for (int s = 0; s + 1 < stages; ++s)
    for (std::size_t m = 0; m < forward[s].size(); ++m) {
      send(s, forward[s][m], s + 1, forward[s + 1][m]);
      send(s + 1, backward[s + 1][m], s, backward[s][m]);
    }
  return build.finish();
}

std::vector<std::vector<int>> gpipe(int stages, int micro_batches) {
  std::vector<int> actions;
  for (int m = 0; m < micro_batches; ++m) actions.push_back(m);
  for (int m = 0; m < micro_batches; ++m) actions.push_back(-1 - m);
  return std::vector<std::vector<int>>(static_cast<std::size_t>(stages), actions);
}

std::vector<std::vector<int>> one_f_one_b(int stages, int micro_batches) {
  std::vector<std::vector<int>> order(static_cast<std::size_t>(stages));
  for (int s = 0; s < stages; ++s) {
    const int ahead = std::min(stages - 1 - s, micro_batches);
    for (int m = 0; m < ahead; ++m) order[s].push_back(m);
    for (int m = 0; m < micro_batches; ++m) {
      if (m + ahead < micro_batches) order[s].push_back(m + ahead);
      order[s].push_back(-1 - m);
    }
  }
  return order;
}

TEST_CASE("GPipe and 1F1B idle (p−1)/(m+p−1) of a step when transfers are free") {
  const int stages = GENERATE(1, 2, 4, 8), micro_batches = GENERATE(1, 2, 8, 32);
  const bool alternate = GENERATE(false, true);
  CAPTURE(stages, micro_batches, alternate);
  const double forward_s = 1, backward_s = 2;
  const StepGraph graph =
      pipeline(alternate ? one_f_one_b(stages, micro_batches) : gpipe(stages, micro_batches),
               forward_s, backward_s, 0);
  const double expected_s = (micro_batches + stages - 1) * (forward_s + backward_s);
  CHECK(step_s(simulate(graph, steps(1))) == Approx(expected_s).epsilon(1e-12));
}

TEST_CASE("GPipe with hops adds 2(p−1) of them to the step") {
  const StepGraph graph = pipeline(gpipe(4, 6), 1, 2, 0.25);
  CHECK(step_s(simulate(graph, steps(1))) == Approx((6 + 3) * 3 + 2 * 3 * 0.25).epsilon(1e-12));
}

TEST_CASE("transfers of different pipelines share a link, and the pipelines wait") {
  // Two stages twice; both hops cross one link of 1 GB/s with 1 GB each, at the same time.
  GraphBuilder build;
  const std::int32_t link = build.link(1e9);
  const std::int32_t pattern = build.pattern({{1, {{link, 1}}}});
  for (int replica = 0; replica < 2; ++replica) {
    const std::int32_t from = build.device(0), to = build.device(1);
    const std::int32_t before = build.compute(from, 1), after = build.compute(to, 1);
    const std::int32_t hop =
        build.comm(CommKind::Pipeline, build.group({from, to}), 0.5, pattern, 1e9);
    build.edge(before, hop);
    build.edge(hop, after);
  }
  CHECK(simulate(build.finish(), steps(1)).end_s == Approx(1 + 0.5 + 2 + 1).epsilon(1e-12));
}

TEST_CASE("a slower device computes longer, and a folded group's collective does not") {
  GraphBuilder build;
  const std::int32_t device = build.device(0, 0.5);
  build.compute_segment(device,
                        build.segment({SegmentItem{.seconds = 1},
                                       SegmentItem{.seconds = 3, .work = WorkKind::TensorComm}}));
  const StepGraph graph = build.finish();
  SimulationOptions options = steps(1);
  CHECK(simulate(graph, options).end_s == Approx(2 + 3));
  options.one_by_one = true;
  CHECK(simulate(graph, options).end_s == Approx(2 + 3));
}

TEST_CASE("running communication slows computation by its share, to at most the cap") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t first = build.compute(device, 1), long_one = build.compute(device, 10);
  const std::int32_t group = build.group({device});
  // 4 s of data from t = 1, and 2 s of parameters from t = 2 beside it.
  const std::int32_t data = build.comm(CommKind::Data, group, 4);
  const std::int32_t delay = build.comm(CommKind::Control, group, 1);
  const std::int32_t gather = build.comm(CommKind::Parameter, group, 2);
  build.edge(first, data);
  build.edge(first, delay);
  build.edge(delay, gather);
  const StepGraph graph = build.finish();
  SimulationOptions options = steps(1);
  options.interference.compute_share[static_cast<std::size_t>(CommKind::Data)] = 0.2;
  options.interference.compute_share[static_cast<std::size_t>(CommKind::Parameter)] = 0.5;
  options.interference.max_share = 0.6;
  options.one_by_one = GENERATE(false, true);
  const SimulationRecord record = simulate(graph, options);
  // Lost: 0.2 for 2 s, 0.6 (not 0.7) for 2 s.
  CHECK(record.finish_s[long_one] == Approx(1 + 10 + 0.4 + 1.2).epsilon(1e-12));
  REQUIRE(record.rate_changes.size() == 4);
  const double dates_s[] = {1, 2, 4, 5}, rates[] = {0.8, 0.4, 0.8, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(record.rate_changes[i].at_s == Approx(dates_s[i]));
    CHECK(record.rate_changes[i].rate == Approx(rates[i]));
  }
}

TEST_CASE("a host that issues slower than the device computes bounds the step") {
  // Ten items of 1 ms issued every 3 ms: the last is issued at 30 ms and takes 1 ms.
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::vector<SegmentItem> items(10, SegmentItem{.seconds = 1e-3});
  build.compute_segment(device, build.segment(items, 3e-3));
  const StepGraph graph = build.finish();
  CHECK(simulate(graph, steps(1)).end_s == Approx(31e-3).epsilon(1e-12));
  // The next step is issued once this one is done.
  CHECK(step_s(simulate(graph, steps(3))) == Approx(31e-3).epsilon(1e-12));
  SimulationOptions options = steps(3);
  options.host_step_s = 5e-3;
  CHECK(step_s(simulate(graph, options)) == Approx(36e-3).epsilon(1e-12));
}

TEST_CASE("a host that issues faster than the device computes delays the first item only") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::vector<SegmentItem> items(10, SegmentItem{.seconds = 3e-3});
  const std::int32_t segment = build.segment(items, 1e-3);
  const std::int32_t first = build.compute_segment(device, segment);
  const std::int32_t second = build.compute_segment(device, segment);
  const SimulationRecord record = simulate(build.finish(), steps(1));
  CHECK(record.finish_s[first] == Approx(31e-3).epsilon(1e-12));
  CHECK(record.host_begin_s[second] == Approx(10e-3).epsilon(1e-12));  // far ahead of the device
  CHECK(record.finish_s[second] == Approx(61e-3).epsilon(1e-12));
}

TEST_CASE("a host that waits before a task issues it no sooner than it may start") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  const std::int32_t segment =
      build.segment(std::vector<SegmentItem>(10, SegmentItem{.seconds = 3e-3}), 1e-3);
  build.compute_segment(device, segment);
  const std::int32_t second = build.compute_segment(device, segment);
  build.graph().tasks[static_cast<std::size_t>(second)].host_waits = true;
  SimulationOptions options = steps(1);
  options.one_by_one = GENERATE(false, true);
  const SimulationRecord record = simulate(build.finish(), options);
  CHECK(record.host_begin_s[second] == Approx(31e-3).epsilon(1e-12));
  CHECK(record.finish_s[second] == Approx(62e-3).epsilon(1e-12));
}

TEST_CASE("host work at the begin of a step counts without launches too") {
  GraphBuilder build;
  const std::int32_t device = build.device();
  build.compute(device, 2);
  SimulationOptions options = steps(2);
  options.host_step_s = 0.5;
  options.one_by_one = GENERATE(false, true);
  const SimulationRecord record = simulate(build.finish(), options);
  CHECK(record.begin_s == Approx(2.5));
  CHECK(record.end_s == Approx(5));
}

TEST_CASE("a graph without tasks takes no time") {
  GraphBuilder build;
  build.device();
  const SimulationRecord record = simulate(build.finish(), steps(2));
  CHECK(step_s(record) == 0);
  CHECK(record.event_count == 0);
}

}  // namespace
}  // namespace rehearse
