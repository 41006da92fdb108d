#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

#include "sim/simulate.h"
#include "tests/catch.h"
#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

constexpr SimulationOptions kOneStep{
    .steps = 1, .one_by_one = false, .interference = {}, .host_step_s = 0};

struct FlowCase {
  double bytes;
  std::vector<Hop> hops;
  double start_s = 0;
};

/// Rates of the live flows by progressive filling (Bertsekas & Gallager, Data Networks, 6.5.2):
/// raise all rates together; the link that fills first fixes the flows that cross it.
std::vector<double> max_min_rates(std::vector<double> capacity,
                                  const std::vector<const FlowCase*>& flows) {
  std::vector<double> rate(flows.size(), 0);
  std::vector<bool> fixed(flows.size(), false);
  for (;;) {
    double least = INFINITY;
    std::int32_t narrow = -1;
    for (std::size_t link = 0; link < capacity.size(); ++link) {
      double weight = 0;
      for (std::size_t f = 0; f < flows.size(); ++f)
        for (const Hop& hop : flows[f]->hops)
          if (!fixed[f] && hop.link == static_cast<std::int32_t>(link)) weight += hop.weight;
      if (weight > 0 && capacity[link] / weight < least) {
        least = capacity[link] / weight;
        narrow = static_cast<std::int32_t>(link);
      }
    }
    if (narrow < 0) return rate;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      const bool crosses = std::any_of(flows[f]->hops.begin(), flows[f]->hops.end(),
                                       [&](const Hop& hop) { return hop.link == narrow; });
      if (fixed[f] || !crosses) continue;
      fixed[f] = true;
      rate[f] = least;
      for (const Hop& hop : flows[f]->hops)
        capacity[hop.link] = std::max(0.0, capacity[hop.link] - hop.weight * least);
    }
  }
}

/// The whole fluid schedule: rates hold until the next flow starts or ends.
std::vector<double> fluid_finish(const std::vector<double>& capacity,
                                 const std::vector<FlowCase>& flows) {
  std::vector<double> left(flows.size()), finish(flows.size(), -1);
  for (std::size_t i = 0; i < flows.size(); ++i) left[i] = flows[i].bytes;
  double now_s = 0;
  for (;;) {
    std::vector<const FlowCase*> live;
    std::vector<std::size_t> index;
    double next_s = INFINITY;
    for (std::size_t i = 0; i < flows.size(); ++i) {
      if (finish[i] >= 0) continue;
      if (flows[i].start_s > now_s) {
        next_s = std::min(next_s, flows[i].start_s);
        continue;
      }
      live.push_back(&flows[i]);
      index.push_back(i);
    }
    if (live.empty() && next_s == INFINITY) return finish;
    const std::vector<double> rate = max_min_rates(capacity, live);
    for (std::size_t k = 0; k < live.size(); ++k)
      next_s = std::min(next_s, now_s + left[index[k]] / rate[k]);
    for (std::size_t k = 0; k < live.size(); ++k) {
      left[index[k]] -= rate[k] * (next_s - now_s);
      if (left[index[k]] <= 1e-12 * flows[index[k]].bytes) finish[index[k]] = next_s;
    }
    now_s = next_s;
  }
}

std::vector<double> simulated_finish(const std::vector<double>& capacity,
                                     const std::vector<FlowCase>& flows) {
  GraphBuilder build;
  const std::int32_t group = build.group({build.device()});
  for (const double bandwidth : capacity) build.link(bandwidth);
  for (const FlowCase& flow : flows)
    build.comm(CommKind::Data, group, flow.start_s, build.pattern({{1, flow.hops}}), flow.bytes);
  return simulate(build.finish(), kOneStep).finish_s;
}

TEST_CASE("a lone transfer takes its latency and its bytes over the bandwidth") {
  const double bytes = GENERATE(1.0, 7.5, 4096.0, 1e6 / 3, 123456789.25, 3.5e11);
  const double latency_s = GENERATE(0.0, 1.3e-6, 2.7e-3);
  const double bandwidth = GENERATE(12.5e9, 450e9 / 7);
  CAPTURE(bytes, latency_s, bandwidth);
  GraphBuilder build;
  const std::int32_t group = build.group({build.device(), build.device()});
  const std::int32_t wide = build.link(4 * bandwidth), narrow = build.link(bandwidth);
  build.comm(CommKind::Data, group, latency_s, build.pattern({{1, {{wide, 1}, {narrow, 1}}}}),
             bytes);
  const SimulationRecord record = simulate(build.finish(), kOneStep);
  const double expected_s = latency_s + bytes / bandwidth;
  CHECK(std::abs(record.finish_s[0] - expected_s) <= 1e-9 * expected_s);
  CHECK(record.end_s == record.finish_s[0]);
  CHECK(record.link_bytes[narrow] == bytes);
}

TEST_CASE("a transfer of a class of w flows takes w times its rate on a link") {
  // Three classes on one link of 12 units: 2 + 3 + 1 shares, then the link frees step by step.
  const std::vector<double> capacity{12e9};
  const std::vector<FlowCase> flows{{2e9, {{0, 2}}}, {4e9, {{0, 3}}}, {12e9, {{0, 1}}}};
  const std::vector<double> finish = simulated_finish(capacity, flows);
  CHECK(finish[0] == Approx(1.0).epsilon(1e-12));            // 2 GB at 12/6 GB/s
  CHECK(finish[1] == Approx(1 + 2.0 / 3.0).epsilon(1e-12));  // 2 GB left at 12/4
  CHECK(finish[2] == Approx(1 + 2.0 / 3.0 + 8.0 / 12.0).epsilon(1e-12));
}

TEST_CASE("weights with a common divisor are the same as the divided ones") {
  const std::vector<FlowCase> plain{{2e9, {{0, 2}}}, {4e9, {{0, 3}}}};
  const std::vector<FlowCase> scaled{{2e9, {{0, 2048}}}, {4e9, {{0, 3072}}}};
  CHECK(simulated_finish({12e9}, plain) == simulated_finish({12e9 * 1024}, scaled));
}

TEST_CASE("flows share links max-min fairly on 300 random networks") {
  double worst = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto draw = [&random](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    const int links = draw(3, 14), count = draw(10, 70), most_weight = draw(1, 6);
    std::vector<double> capacity;
    // Every third network mixes NVLink-like and thin links.
    for (int i = 0; i < links; ++i)
      capacity.push_back(draw(1, 50) * (seed % 3 == 0 && draw(0, 1) == 1 ? 1e12 : 1e9));
    std::vector<FlowCase> flows;
    for (int i = 0; i < count; ++i) {
      std::vector<int> order(static_cast<std::size_t>(links));
      for (int l = 0; l < links; ++l) order[l] = l;
      std::shuffle(order.begin(), order.end(), random);
      FlowCase flow{seed % 2 == 0 ? 1e7 : 1e5 * draw(1, 1000) + 0.25, {}, 0};
      if (seed % 4 == 3) flow.start_s = 1e-4 * draw(0, 20);
      for (int h = 0; h < draw(1, std::min(links, 6)); ++h)
        flow.hops.push_back({order[h], draw(1, most_weight)});
      flows.push_back(flow);
    }
    const std::vector<double> expected = fluid_finish(capacity, flows);
    const std::vector<double> actual = simulated_finish(capacity, flows);
    for (int i = 0; i < count; ++i) {
      const double error = std::abs(actual[i] - expected[i]) / expected[i];
      worst = std::max(worst, error);
      if (error > 1e-9) FAIL_CHECK("flow " << i << ": " << actual[i] << " ≠ " << expected[i]);
    }
  }
  CHECK(worst < 1e-9);
}

TEST_CASE("flows of one pattern start together and the transfer ends with the last") {
  GraphBuilder build;
  const std::int32_t group = build.group({build.device()});
  const std::int32_t a = build.link(1e9), b = build.link(2e9);
  const std::int32_t both = build.pattern({{1, {{a, 1}}}, {3, {{b, 1}}}, {0, {{a, 1}}}, {5, {}}});
  build.comm(CommKind::Data, group, 0.5, both, 2e9);
  const SimulationRecord record = simulate(build.finish(), kOneStep);
  CHECK(record.finish_s[0] == Approx(0.5 + 3).epsilon(1e-12));
  CHECK(record.link_bytes[a] == 2e9);
  CHECK(record.link_bytes[b] == 6e9);
}

TEST_CASE("the network prints nothing and leaves the program its signals") {
  // In a child, because the network is silent or not when it is made for the first time.
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::cout.flush();  // what the test program has to say stays with it
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    const auto own = [](int) {};
    for (const int signal : {SIGINT, SIGTERM, SIGSEGV}) std::signal(signal, own);
    for (int run = 0; run < 3; ++run) simulated_finish({1e9}, {{1e6, {{0, 1}}}});
    bool kept = true;
    for (const int signal : {SIGINT, SIGTERM, SIGSEGV})
      kept &= std::signal(signal, SIG_DFL) == static_cast<void (*)(int)>(own);
    std::exit(kept ? 0 : 1);  // with the library's own leave-taking
  }
  close(ends[1]);
  std::string output;
  char buffer[512];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    output.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(output == "");
  CHECK(status == 0);
}

TEST_CASE("nothing to send takes the latency alone") {
  GraphBuilder build;
  const std::int32_t group = build.group({build.device()});
  const std::int32_t pattern = build.pattern({{1, {{build.link(1e9), 1}}}, {1, {}}});
  const std::int32_t empty = build.comm(CommKind::Data, group, 1e-3, pattern, 0);
  const std::int32_t none = build.comm(CommKind::Data, group, 2e-3);
  const std::int32_t flowless =
      build.comm(CommKind::Data, group, 3e-3, build.pattern({{1, {}}}), 100);
  const SimulationRecord record = simulate(build.finish(), kOneStep);
  CHECK(record.finish_s[empty] == 1e-3);
  CHECK(record.finish_s[none] == 2e-3);
  CHECK(record.finish_s[flowless] == 3e-3);
}

}  // namespace
}  // namespace rehearse
