#include "plan/split_schedules.h"

#include <random>
#include <string>

#include "plan/automatic_schedule.h"
#include "plan/plan_file.h"
#include "tests/plan/schedule_clock.h"

namespace rehearse {
namespace {

using Kind = ScheduleKind;

std::string written(const Schedule& schedule, int stage) {
  return actions_text(schedule.actions[static_cast<std::size_t>(stage)], schedule.chunks);
}

double rate(const Schedule& schedule, const ActionTimes& times) {
  const double work_s = schedule.micro_batches * times.all();
  return 1 - work_s / ScheduleClock(schedule, times).longest_stage_s();
}

}  // namespace

TEST_CASE("ZB-H1 and ZB-H2 over 3 stages and 5 micro-batches are the tables by hand") {
  const Schedule one = make_schedule(Kind::ZbH1, 3, 1, 5);
  CHECK(written(one, 0) == "F0 F1 F2 I0 W0 F3 I1 W1 F4 I2 W2 I3 W3 I4 W4");
  CHECK(written(one, 1) == "F0 F1 I0 F2 I1 W0 F3 I2 W1 F4 I3 W2 I4 W3 W4");
  CHECK(written(one, 2) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 F4 I4 W2 W3 W4");
  const Schedule two = make_schedule(Kind::ZbH2, 3, 1, 5);
  CHECK(written(two, 0) == "F0 F1 F2 F3 F4 I0 W0 I1 W1 I2 W2 I3 W3 I4 W4");
  CHECK(written(two, 2) == "F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 W0 W1 W2 W3 W4");
}

TEST_CASE("Zero-bubble schedules idle what their closed forms say when transfers are free") {
  const int p = GENERATE(2, 3, 4, 8);
  const int m = p * GENERATE(2, 3, 5);
  const double f = GENERATE(1.0, 1.1), w = GENERATE(0.5, 0.9, 1.0);
  const double b = 1.1;
  CAPTURE(p, m, f, w);
  const ActionTimes times{f, b, w, 0};
  const double work_s = m * times.all();
  const ScheduleClock one(make_schedule(Kind::ZbH1, p, 1, m), times);
  CHECK(one.makespan_s() - work_s == Approx((p - 1) * (f + b - w)).epsilon(1e-9));
  const Schedule two = make_schedule(Kind::ZbH2, p, 1, m);
  CHECK(ScheduleClock(two, times).longest_stage_s() - work_s ==
        Approx((p - 1) * (f + b - 2 * w)).margin(1e-9));
  const std::vector<int> stages(static_cast<std::size_t>(p), 1);
  for (int s = 0; s < p; ++s) {
    CHECK(peak_in_flight(make_schedule(Kind::ZbH1, p, 1, m))[static_cast<std::size_t>(s)] == p);
    CHECK(peak_in_flight(two)[static_cast<std::size_t>(s)] == 2 * p - 1);
  }
}

TEST_CASE("ZB-V has no bubble for equal times and holds what 1F1B holds") {
  const int p = GENERATE(2, 3, 4, 8);
  const int m = 2 * p - 1 + GENERATE(0, 1, 9);
  CAPTURE(p, m);
  const Schedule schedule = make_schedule(Kind::ZbV, p, 2, m);
  CHECK(schedule_faults(schedule).empty());
  CHECK(ScheduleClock(schedule, {0.5, 0.5, 0.5, 0}).longest_stage_s() == Approx(3.0 * m));
  // Chunks are half a stage: 2p of them are p micro-batches' activations, on every stage.
  CHECK(peak_in_flight(schedule) == std::vector<int>(static_cast<std::size_t>(p), 2 * p));
}

TEST_CASE("DualPipe idles and holds what is published") {
  const int p = GENERATE(2, 4, 8, 16);
  const int m = 2 * p + 2 * GENERATE(0, 1, 5);
  const double f = 1, w = GENERATE(0.4, 0.8, 1.0);
  CAPTURE(p, m, w);
  const Schedule schedule = make_schedule(Kind::DualPipe, p, 1, m);
  CHECK(schedule_faults(schedule).empty());
  // README of deepseek-ai/DualPipe: (p/2 − 1)(F&B + B − 3W), B the whole backward, p + 1 held.
  const double whole_b = f + w, both = f + whole_b;
  const double bubble_s = (p / 2 - 1) * (both + whole_b - 3 * w);
  CHECK(ScheduleClock(schedule, {f, f, w, 0}).makespan_s() - m * both ==
        Approx(bubble_s).margin(1e-9));
  CHECK(peak_in_flight(schedule) == std::vector<int>(static_cast<std::size_t>(p), p + 1));
  // With an input gradient longer than the forward it idles less than the formula says.
  const double b = 1.2 * f, longer_work_s = m * (f + b + w);
  const double longer_s = ScheduleClock(schedule, {f, b, w, 0}).makespan_s() - longer_work_s;
  CHECK(longer_s <= (p / 2 - 1) * (f + 2 * (b + w) - 3 * w) + 1e-9);
}

TEST_CASE("Bubble rates of 1F1B, ZB-H1, ZB-H2, ZB-1p and ZB-2p are the published ones") {
  for (const PublishedBubbles& row : published_bubbles()) {
    CAPTURE(row.micro_batches, row.forward_s);
    const int p = 8, m = row.micro_batches;
    const ActionTimes times{row.forward_s, row.input_gradient_s, row.weight_gradient_s, row.hop_s};
    const AutomaticTimes automatic{row.forward_s, row.input_gradient_s, row.weight_gradient_s,
                                   row.hop_s, row.kept_for_weights};
    // Printed with four digits.
    CHECK(std::abs(rate(make_schedule(Kind::ZbH1, p, 1, m), times) - row.zb_h1) < 1e-4);
    CHECK(std::abs(rate(make_schedule(Kind::ZbH2, p, 1, m), times) - row.zb_h2) < 1e-4);
    CHECK(std::abs(rate(automatic_schedule(automatic, p, m, p), times) - row.zb_1p) < 1e-4);
    CHECK(std::abs(rate(automatic_schedule(automatic, p, m, 2 * p), times) - row.zb_2p) < 1e-3);
  }
}

TEST_CASE("Automatic schedules run, keep to their memory and are no slower than ZB-H1") {
  std::mt19937 random(20261120);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 60; ++round) {
    const int p = draw(1, 9), m = draw(1, 30), limit = draw(p, 3 * p);
    AutomaticTimes times{0.1 * draw(5, 15), 0.1 * draw(5, 15), 0.1 * draw(1, 10),
                         0.02 * draw(0, 3)};
    CAPTURE(round, p, m, limit, times.forward_s, times.input_gradient_s, times.weight_gradient_s);
    const Schedule made = automatic_schedule(times, p, m, limit);
    CHECK(schedule_faults(made).empty());
    for (const int held : peak_in_flight(made)) CHECK(held <= limit);
    CHECK(automatic_schedule(times, p, m, limit).actions == made.actions);
  }
}

TEST_CASE("Every kind of schedule runs at every size that it accepts") {
  int made = 0;
  for (const Kind kind : {Kind::ZbH1, Kind::ZbH2, Kind::ZbV, Kind::DualPipe})
    for (int p = 1; p <= 7; ++p)
      for (int m = 1; m <= 20; ++m) {
        const int chunks = kind == Kind::ZbV ? 2 : 1;
        CAPTURE(static_cast<int>(kind), p, m);
        if (!why_not_schedulable(kind, p, chunks, m).empty()) continue;
        ++made;
        const auto faults = schedule_faults(make_schedule(kind, p, chunks, m));
        CAPTURE(faults.empty() ? std::string() : faults.front());
        CHECK(faults.empty());
      }
  CHECK(made > 400);
}

TEST_CASE("What the split schedules cannot do is said in a sentence") {
  CHECK(why_not_schedulable(Kind::ZbV, 4, 1, 8) == "a ZB-V stage holds 2 model chunks, not 1");
  CHECK(why_not_schedulable(Kind::ZbH1, 4, 2, 8) ==
        "only 1F1B interleaves model chunks, and a ZB-H1 stage holds one, not 2");
  CHECK(why_not_schedulable(Kind::DualPipe, 3, 1, 8) ==
        "DualPipe needs an even number of stages, and 3 is odd");
  CHECK(why_not_schedulable(Kind::DualPipe, 4, 1, 6) ==
        "DualPipe over 4 stages needs at least 8 micro-batches, and there are 6");
  CHECK(why_not_schedulable(Kind::DualPipe, 2, 1, 7) ==
        "DualPipe sends half of the micro-batches from each end, and 7 is odd");
}

TEST_CASE("Pieces and places are each other's inverse") {
  for (const Placement placement : {Placement::Loop, Placement::Vee, Placement::BothWays}) {
    const Schedule schedule{
        .stages = 4, .chunks = 2, .micro_batches = 6, .actions = {}, .placement = placement};
    for (int s = 0; s < 4; ++s)
      for (int c = 0; c < 2; ++c)
        for (int i = 0; i < 6; ++i) {
          if (!visits_chunk(schedule, c, i)) continue;
          const ChunkPlace place = place_of(schedule, piece_of(schedule, s, c), i);
          CHECK(place.stage == s);
          CHECK(place.chunk == c);
        }
    CHECK(ends_meet(schedule) == (placement != Placement::Loop));
  }
}

TEST_CASE("An action of the other half's way is a fault") {
  Schedule schedule = make_schedule(Kind::DualPipe, 2, 1, 4);
  schedule.actions[0][0].micro_batch = 3;
  CHECK(schedule_faults(schedule).front() ==
        "stage 0: the forward of micro-batch 3, chunk 0 is on the way of the other half");
}

}  // namespace rehearse
