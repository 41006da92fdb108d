#include "plan/schedule.h"

#include <algorithm>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "plan/timeline.h"
#include "tests/catch.h"

namespace rehearse {
namespace {

/// "F3" or, with several chunks, "F3b": micro-batch 3, chunk b.
std::string written(const Schedule& schedule, int stage) {
  std::string text;
  for (const Action& action : schedule.actions[static_cast<std::size_t>(stage)]) {
    if (!text.empty()) text += ' ';
    text += "FBIW"[static_cast<int>(action.kind)];
    text += std::to_string(action.micro_batch);
    if (schedule.chunks > 1) text += static_cast<char>('a' + action.chunk);
  }
  return text;
}

Schedule read(const std::vector<std::string>& stages, int chunks, int micro_batches) {
  Schedule schedule{.stages = static_cast<int>(stages.size()),
                    .chunks = chunks,
                    .micro_batches = micro_batches,
                    .actions = {}};
  for (const std::string& line : stages) {
    auto& actions = schedule.actions.emplace_back();
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      Action action;
      action.kind = static_cast<ActionKind>(std::string("FBIW").find(word[0]));
      std::size_t used = 0;
      action.micro_batch = std::stoi(word.substr(1), &used);
      action.chunk = word.size() > used + 1 ? word[used + 1] - 'a' : 0;
      actions.push_back(action);
    }
  }
  return schedule;
}

struct Times {
  double forward_s = 1, backward_s = 1;
};

/// The max-plus evaluation of a schedule whose communication is free: each action starts when
/// its stage is free and its inputs are there. Returns the makespan; needs an order that runs.
double makespan_s(const Schedule& schedule, Times times) {
  const int pieces = schedule.stages * schedule.chunks;
  const auto cell = [&](int piece, int micro_batch) {
    return static_cast<std::size_t>(piece) * static_cast<std::size_t>(schedule.micro_batches) +
           static_cast<std::size_t>(micro_batch);
  };
  std::vector<double> forward(cell(pieces, 0), -1), backward(forward);
  std::vector<std::size_t> next(schedule.actions.size(), 0);
  std::vector<double> free_at(schedule.actions.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (int stage = 0; stage < schedule.stages; ++stage) {
      const auto s = static_cast<std::size_t>(stage);
      while (next[s] < schedule.actions[s].size()) {
        const Action& action = schedule.actions[s][next[s]];
        const int piece = action.chunk * schedule.stages + stage;
        const bool is_forward = action.kind == ActionKind::Forward;
        double input = 0;
        if (is_forward && piece > 0) input = forward[cell(piece - 1, action.micro_batch)];
        if (!is_forward)
          input = piece == pieces - 1 ? forward[cell(piece, action.micro_batch)]
                                      : backward[cell(piece + 1, action.micro_batch)];
        if (input < 0) break;
        free_at[s] =
            std::max(free_at[s], input) + (is_forward ? times.forward_s : times.backward_s);
        (is_forward ? forward : backward)[cell(piece, action.micro_batch)] = free_at[s];
        ++next[s];
        moved = true;
      }
    }
  }
  for (std::size_t s = 0; s < next.size(); ++s) REQUIRE(next[s] == schedule.actions[s].size());
  return *std::max_element(free_at.begin(), free_at.end());
}

/// The idle share of the pipeline's time.
double bubble(const Schedule& schedule, Times times) {
  const double busy =
      schedule.chunks * schedule.micro_batches * (times.forward_s + times.backward_s);
  return 1 - busy / makespan_s(schedule, times);
}

}  // namespace

TEST_CASE("1F1B over 4 stages and 8 micro-batches is the table written by hand") {
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 4, 1, 8);
  CHECK(written(schedule, 0) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7");
  CHECK(written(schedule, 1) == "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 B6 B7");
  CHECK(written(schedule, 2) == "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 B7");
  CHECK(written(schedule, 3) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7");
}

TEST_CASE("Interleaved 1F1B over 4 stages, 2 chunks, 8 micro-batches is the table by hand") {
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 4, 2, 8);
  CHECK(written(schedule, 0) ==
        "F0a F1a F2a F3a F0b F1b F2b F3b F4a F5a F6a B0b F7a B1b F4b B2b F5b B3b F6b B0a F7b B1a "
        "B2a B3a B4b B5b B6b B7b B4a B5a B6a B7a");
  CHECK(written(schedule, 1) ==
        "F0a F1a F2a F3a F0b F1b F2b F3b F4a B0b F5a B1b F6a B2b F7a B3b F4b B0a F5b B1a F6b B2a "
        "F7b B3a B4b B5b B6b B7b B4a B5a B6a B7a");
  CHECK(written(schedule, 2) ==
        "F0a F1a F2a F3a F0b F1b F2b B0b F3b B1b F4a B2b F5a B3b F6a B0a F7a B1a F4b B2a F5b B3a "
        "F6b B4b F7b B5b B6b B7b B4a B5a B6a B7a");
  CHECK(written(schedule, 3) ==
        "F0a F1a F2a F3a F0b B0b F1b B1b F2b B2b F3b B3b F4a B0a F5a B1a F6a B2a F7a B3a F4b B4b "
        "F5b B5b F6b B6b F7b B7b B4a B5a B6a B7a");
}

TEST_CASE("GPipe runs all forwards first, layer-wise one micro-batch at a time") {
  CHECK(written(make_schedule(ScheduleKind::Gpipe, 2, 1, 3), 1) == "F0 F1 F2 B0 B1 B2");
  CHECK(written(make_schedule(ScheduleKind::LayerWise, 2, 1, 3), 0) == "F0 B0 F1 B1 F2 B2");
}

TEST_CASE("A short last group that fills the pipeline is scheduled as Megatron-LM does") {
  // 5 micro-batches in groups of 3 and 2 over 2 stages: visits 0a 1a 2a 0b 1b 2b 3a 4a 3b 4b;
  // the first stage warms up with 2·1 + 1·3 = 5 forwards.
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 2, 2, 5, 3);
  CHECK(written(schedule, 0) ==
        "F0a F1a F2a F0b F1b F2b B0b F3a B1b F4a B2b F3b B0a F4b B1a B2a B3b B4b B3a B4a");
  CHECK(schedule_faults(schedule).empty());
}

TEST_CASE("Schedules of random sizes run, hold what theory says and idle what theory says") {
  std::mt19937 random(20260917);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 150; ++round) {
    const int p = draw(2, 12), v = draw(1, 5), rounds = draw(1, 6);
    const int m = v > 1 ? p * rounds : draw(1, 40);
    const Times times{.forward_s = 1.0 * draw(1, 4), .backward_s = 1.0 * draw(1, 8)};
    CAPTURE(round, p, v, m, times.forward_s, times.backward_s);
    const Schedule one = make_schedule(ScheduleKind::OneFOneB, p, v, m);
    CHECK(schedule_faults(one).empty());
    CHECK(bubble(one, times) == Approx((p - 1.0) / (v * m + p - 1.0)).epsilon(1e-12));
    const std::vector<int> held = peak_in_flight(one);
    for (int i = 0; i < p; ++i) {
      const int interleaved = std::min(2 * (p - i - 1) + (v - 1) * p + 1, v * m);
      CHECK(held[static_cast<std::size_t>(i)] == (v == 1 ? std::min(p - i, m) : interleaved));
    }
    if (v > 1) continue;
    const Schedule gpipe = make_schedule(ScheduleKind::Gpipe, p, 1, m);
    CHECK(schedule_faults(gpipe).empty());
    CHECK(bubble(gpipe, times) == Approx((p - 1.0) / (m + p - 1.0)).epsilon(1e-12));
    CHECK(peak_in_flight(gpipe) == std::vector<int>(static_cast<std::size_t>(p), m));
    const Schedule layer_wise = make_schedule(ScheduleKind::LayerWise, p, 1, m);
    CHECK(schedule_faults(layer_wise).empty());
    CHECK(makespan_s(layer_wise, times) == m * p * (times.forward_s + times.backward_s));
    CHECK(peak_in_flight(layer_wise) == std::vector<int>(static_cast<std::size_t>(p), 1));
  }
}

TEST_CASE("Larger groups of micro-batches run where Megatron-LM's rule allows them") {
  std::mt19937 random(7);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int made = 0;
  for (int round = 0; round < 400; ++round) {
    const int p = draw(2, 8), v = draw(2, 4), m = draw(1, 40), group = draw(1, 40);
    CAPTURE(round, p, v, m, group);
    const bool allowed = group >= p && group <= m && (m % group == 0 || m % group >= p);
    CHECK(why_not_schedulable(ScheduleKind::OneFOneB, p, v, m, group).empty() == allowed);
    if (!allowed) continue;
    ++made;
    const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, p, v, m, group);
    CHECK(schedule_faults(schedule).empty());
    CHECK(peak_in_flight(schedule)[0] == std::min(2 * (p - 1) + (v - 1) * group + 1, v * m));
  }
  CHECK(made > 30);
}

TEST_CASE("What cannot be scheduled is said in a sentence") {
  using Kind = ScheduleKind;
  CHECK(why_not_schedulable(Kind::OneFOneB, 4, 2, 10) ==
        "interleaved 1F1B needs a number of micro-batches that is a multiple of its 4 stages, "
        "and 10 is not");
  CHECK(why_not_schedulable(Kind::OneFOneB, 4, 2, 3) ==
        "interleaved 1F1B over 4 stages needs at least 4 micro-batches, and there are 3");
  CHECK(why_not_schedulable(Kind::OneFOneB, 1, 2, 4) ==
        "interleaving needs at least 2 pipeline stages, and there is 1");
  CHECK(why_not_schedulable(Kind::Gpipe, 4, 2, 8) ==
        "only 1F1B interleaves model chunks, and a GPipe stage holds one, not 2");
  CHECK(why_not_schedulable(Kind::OneFOneB, 4, 2, 9, 5) == "");
  CHECK(why_not_schedulable(Kind::OneFOneB, 4, 2, 8, 5) ==
        "the last group of micro-batches has 3, fewer than the 4 stages, so the pipeline would "
        "run dry");
  CHECK(why_not_schedulable(Kind::OneFOneB, 0, 1, 1) == "a pipeline needs at least 1 stage");
  CHECK(why_not_schedulable(Kind::OneFOneB, 1, 0, 1) == "a stage needs at least 1 model chunk");
  CHECK(why_not_schedulable(Kind::OneFOneB, 1, 1, 0) == "a step needs at least 1 micro-batch");
  CHECK(why_not_schedulable(Kind::OneFOneB, 1, 1, 1) == "");
}

TEST_CASE("Missing, double and foreign actions are found") {
  using Words = std::vector<std::string>;
  CHECK(schedule_faults(read({"F0 B0 F1", "F0 B0 F1 B1"}, 1, 2)) ==
        Words{"stage 0: the backward of micro-batch 1, chunk 0 is missing"});
  CHECK(schedule_faults(read({"F0 F0 B0"}, 1, 1)) ==
        Words{"stage 0: the forward of micro-batch 0, chunk 0 is done more than once"});
  CHECK(schedule_faults(read({"F0 B0 F3 F0b"}, 1, 1)) ==
        Words{"stage 0: the forward of micro-batch 3, chunk 0 is out of range",
              "stage 0: the forward of micro-batch 0, chunk 1 is out of range"});
  CHECK(schedule_faults(read({"F0 I0"}, 1, 1)) ==
        Words{"stage 0: the weight gradient of micro-batch 0, chunk 0 is missing"});
  CHECK(schedule_faults(read({"F0 B0 W0"}, 1, 1)) ==
        Words{"stage 0: the backward of micro-batch 0, chunk 0 is done whole and in halves"});
  CHECK(schedule_faults(Schedule{.stages = 2, .chunks = 1, .micro_batches = 1, .actions = {{}}}) ==
        Words{"the schedule lists actions for 1 stages, and there are 2"});
  CHECK(schedule_faults(read({""}, 1, 50)).back() == "and 80 more faults");
}

TEST_CASE("Stages that would wait for each other for ever are found") {
  // Stage 1 wants micro-batch 1 forward before it gives back the gradient of 0, which stage 0
  // wants before it sends micro-batch 1.
  const auto faults = schedule_faults(read({"F0 B0 F1 B1", "F0 F1 B0 B1"}, 1, 2));
  REQUIRE(faults.size() == 2);
  CHECK(faults[0] ==
        "stage 0: the backward of micro-batch 0, chunk 0 (action 1) waits for ever, because what "
        "it needs comes after what waits for it");
  CHECK(schedule_faults(read({"W0 F0 I0"}, 1, 1)).size() == 1);
  CHECK(schedule_faults(read({"B0 F0"}, 1, 1)).size() == 1);
}

TEST_CASE("A backward split in halves runs and frees its activations with the second half") {
  const Schedule schedule = read({"F0 F1 I0 I1 W0 W1", "F0 I0 F1 I1 W0 W1"}, 1, 2);
  CHECK(schedule_faults(schedule).empty());
  CHECK(peak_in_flight(schedule) == std::vector<int>{2, 2});
  CHECK(peak_in_flight(read({"F0 I0 W0 F1 I1 W1"}, 1, 2)) == std::vector<int>{1});
}

TEST_CASE("Streams have names of their own") {
  std::vector<std::string> names;
  for (int i = 0; i < kStreamCount; ++i) names.push_back(stream_name(static_cast<Stream>(i)));
  std::sort(names.begin(), names.end());
  CHECK(std::unique(names.begin(), names.end()) == names.end());
}

}  // namespace rehearse
