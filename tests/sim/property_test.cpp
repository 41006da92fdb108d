// Properties that hold for every graph, on graphs drawn from seeds.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "sim/metrics.h"
#include "sim/simulate.h"
#include "tests/catch.h"
#include "tests/sim/random_graph.h"

namespace rehearse {
namespace {

constexpr unsigned kGraphs = 120;

/// The seed decides what the graph contains: every mixture of launches, speeds and interference.
StepGraph graph_of(unsigned seed) {
  return random_graph(seed, {.launches = seed % 2 == 1, .speeds = seed % 4 >= 2});
}
SimulationOptions options_of(unsigned seed) {
  SimulationOptions options;
  options.steps = 1 + static_cast<int>(seed % 3);
  if (seed % 8 >= 4) options.interference = random_interference(seed);
  if (seed % 5 == 1) options.host_step_s = 150e-6;
  return options;
}

template <class Values>
void append(std::string& bytes, const Values& values) {
  for (const auto& value : values) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes.append(raw, sizeof value);
  }
}

std::string bytes_of(const SimulationRecord& record) {
  std::string bytes;
  append(bytes, std::vector<double>{record.begin_s, record.end_s});
  append(bytes, record.start_s);
  append(bytes, record.finish_s);
  append(bytes, record.last_predecessor);
  append(bytes, record.host_begin_s);
  for (const auto& change : record.rate_changes) {
    append(bytes, std::vector<std::int32_t>{change.device});
    append(bytes, std::vector<double>{change.at_s, change.rate});
  }
  append(bytes, record.previous_finish_s);
  append(bytes, record.link_bytes);
  append(bytes, std::vector<std::int64_t>{record.event_count});
  return bytes;
}

double parts_s(const DeviceMetrics& device) {
  double sum_s = device.bubble_s + device.waiting_s + device.host_s;
  for (const double work_s : device.work_s) sum_s += work_s;
  for (const double exposed_s : device.exposed_s) sum_s += exposed_s;
  return sum_s;
}

TEST_CASE("segments run at once end when their items run one by one do") {
  std::size_t changes = 0;
  for (unsigned seed = 0; seed < kGraphs; ++seed) {
    CAPTURE(seed);
    const StepGraph graph = graph_of(seed);
    SimulationOptions options = options_of(seed);
    const SimulationRecord whole = simulate(graph, options);
    options.one_by_one = true;
    const SimulationRecord single = simulate(graph, options);
    CHECK(single.event_count >= whole.event_count);
    changes += whole.rate_changes.size();
    double worst = std::abs(whole.begin_s - single.begin_s);
    for (std::size_t task = 0; task < graph.tasks.size(); ++task)
      worst = std::max({worst, std::abs(whole.start_s[task] - single.start_s[task]),
                        std::abs(whole.finish_s[task] - single.finish_s[task])});
    CHECK(worst <= 1e-9 * whole.end_s);
  }
  CHECK(changes > 1000);  // the graphs do interfere
}

TEST_CASE("the parts of every device add up to the step") {
  for (unsigned seed = 0; seed < kGraphs; ++seed) {
    CAPTURE(seed);
    const StepGraph graph = graph_of(seed);
    const SimulationRecord record = simulate(graph, options_of(seed));
    const StepMetrics metrics = measure(graph, record);
    CHECK(metrics.step_time_s == record.end_s - record.begin_s);
    REQUIRE(metrics.devices.size() == graph.devices.size());
    for (const DeviceMetrics& device : metrics.devices) {
      CHECK(std::abs(parts_s(device) - metrics.step_time_s) <= 1e-9 * metrics.step_time_s);
      for (const double hidden_s : device.hidden_s) {
        CHECK(hidden_s >= 0);
        CHECK(hidden_s <= metrics.step_time_s * (1 + 1e-12));
      }
      CHECK(device.slowed_s >= 0);
      CHECK(device.slowed_s <= device.busy_s());
      CHECK(std::min({device.bubble_s, device.waiting_s, device.host_s}) >= 0);
    }
  }
}

TEST_CASE("every predecessor that was done last ended when its successor started") {
  for (unsigned seed = 0; seed < kGraphs; ++seed) {
    CAPTURE(seed);
    const StepGraph graph = graph_of(seed);
    const SimulationRecord record = simulate(graph, options_of(seed));
    for (std::size_t task = 0; task < graph.tasks.size(); ++task) {
      CHECK(record.finish_s[task] >= record.start_s[task]);
      const std::int32_t last = record.last_predecessor[task];
      if (last >= 0) CHECK(record.finish_s[last] == record.start_s[task]);
      for (std::int32_t i = graph.first_successor[task]; i < graph.first_successor[task + 1]; ++i)
        CHECK(record.start_s[graph.successor[i]] >= record.finish_s[task]);
    }
  }
}

TEST_CASE("a timeline's streams are in order, do not overlap and hold the metrics' work") {
  for (unsigned seed = 0; seed < kGraphs; ++seed) {
    CAPTURE(seed);
    const StepGraph graph = graph_of(seed);
    const SimulationRecord record = simulate(graph, options_of(seed));
    const StepMetrics metrics = measure(graph, record);
    const Timeline timeline = expand_timeline(graph, record);
    REQUIRE(timeline.ranks.size() == graph.devices.size());
    CHECK(timeline.step_time_s == metrics.step_time_s);
    CHECK(timeline.tags == graph.labels);
    std::vector<double> busy_s(graph.devices.size(), 0);
    const TimelineEvent* before = nullptr;
    bool ordered = true, inside = true;
    for (const TimelineEvent& event : timeline.events) {
      if (before != nullptr) ordered &= before->rank <= event.rank;
      if (before != nullptr && before->rank == event.rank)
        ordered &= before->stream < event.stream ||
                   (before->stream == event.stream && before->end_s <= event.start_s);
      before = &event;
      inside &=
          event.start_s >= 0 && event.end_s >= event.start_s && event.end_s <= timeline.step_time_s;
      if (event.stream == Stream::Compute)
        busy_s[static_cast<std::size_t>(event.rank)] += event.end_s - event.start_s;
    }
    CHECK(ordered);
    CHECK(inside);
    for (std::size_t i = 0; i < busy_s.size(); ++i)
      CHECK(std::abs(busy_s[i] - metrics.devices[i].busy_s()) <= 1e-9 * metrics.step_time_s);
  }
}

TEST_CASE("the same graph gives the same bytes, fifty times in one process and in a child") {
  const StepGraph graph = graph_of(7);
  const SimulationOptions options = options_of(7);
  const std::string first = bytes_of(simulate(graph, options));
  for (unsigned run = 0; run < 50; ++run) {
    if (run % 10 == 0) simulate(graph_of(run + 20), options_of(run + 20));
    REQUIRE(bytes_of(simulate(graph, options)) == first);
  }
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(bytes_of(simulate(graph, options)) == first ? 0 : 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

TEST_CASE("a first simulation is the same in a fresh process") {
  // Children that have not simulated before: their library's clock has never moved.
  const StepGraph graph = graph_of(5);
  const SimulationOptions options = options_of(5);
  std::string answers[2];
  for (std::string& answer : answers) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const std::string bytes = bytes_of(simulate(graph, options));
      std::size_t written = 0;
      while (written < bytes.size()) {
        const ssize_t n = write(ends[1], bytes.data() + written, bytes.size() - written);
        if (n <= 0) _exit(1);
        written += static_cast<std::size_t>(n);
      }
      _exit(0);
    }
    close(ends[1]);
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
      answer.append(buffer, static_cast<std::size_t>(n));
    close(ends[0]);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
  }
  CHECK(!answers[0].empty());
  CHECK(answers[0] == answers[1]);
  CHECK(bytes_of(simulate(graph, options)) == answers[0]);
}

}  // namespace
}  // namespace rehearse
