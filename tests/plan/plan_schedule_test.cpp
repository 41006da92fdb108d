#include "plan/plan_schedule.h"

#include "plan/plan_file.h"
#include "tests/catch.h"

namespace rehearse {
namespace {

std::vector<std::string> texts_of(const Schedule& schedule) {
  std::vector<std::string> texts;
  for (const auto& actions : schedule.actions)
    texts.push_back(actions_text(actions, schedule.chunks));
  return texts;
}

Plan pipeline(ScheduleKind kind, int stages, int virtual_stages = 1) {
  Plan plan;
  plan.dp = 1;
  plan.pp = stages;
  plan.virtual_stages = virtual_stages;
  plan.schedule = kind;
  return plan;
}

}  // namespace

TEST_CASE("A named schedule written as explicit actions is the same schedule") {
  struct Case {
    ScheduleKind kind;
    int virtual_stages, group;
  };
  for (const Case& c : {Case{ScheduleKind::OneFOneB, 1, 0}, Case{ScheduleKind::OneFOneB, 2, 8},
                        Case{ScheduleKind::ZbH2, 1, 0}, Case{ScheduleKind::ZbV, 2, 0},
                        Case{ScheduleKind::DualPipe, 1, 0}}) {
    Plan plan = pipeline(c.kind, 4, c.virtual_stages);
    plan.schedule_group = c.group;
    REQUIRE(plan_schedule_faults(plan, 8).empty());
    const Schedule named = plan_schedule(plan, 8);
    CAPTURE(static_cast<int>(c.kind), actions_text(named.actions[1], named.chunks));
    plan.actions = texts_of(named);
    CHECK(plan_schedule_faults(plan, 8).empty());
    CHECK(plan_schedule(plan, 8).actions == named.actions);
  }
}

TEST_CASE("A group of micro-batches changes the order of interleaving") {
  Plan plan = pipeline(ScheduleKind::OneFOneB, 2, 2);
  const Schedule by_stages = plan_schedule(plan, 8);
  plan.schedule_group = 4;
  CHECK(plan_schedule_faults(plan, 8).empty());
  CHECK(plan_schedule(plan, 8).actions != by_stages.actions);
  plan.schedule_group = 9;
  const auto faults = plan_schedule_faults(plan, 8);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].pointer == "/schedule_group");
  CHECK(faults[0].message ==
        "a group of 9 micro-batches is outside 2 (the stages) to 8 (the micro-batches)");
}

TEST_CASE("Explicit actions are checked, each fault where it is") {
  Plan plan = pipeline(ScheduleKind::OneFOneB, 2);
  plan.actions = {"F0 F1 B0 B1"};
  auto faults = plan_schedule_faults(plan, 2);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].message == "the plan has 2 stages, but actions are given for 1");
  plan.actions = {"F0 F1 B0 B1", "F0 X1"};
  faults = plan_schedule_faults(plan, 2);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].pointer == "/actions/1");
  CHECK(faults[0].message == "the actions of stage 1 are not readable");
  plan.actions = {"F0 F1 I0 W0 B1", "F0 B0 F1"};
  faults = plan_schedule_faults(plan, 2);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].pointer == "/actions");
  CHECK(faults[0].message == "stage 1: the backward of micro-batch 1, chunk 0 is missing");
  plan.actions = {"F0 F1 I0 W0 B1", "F0&B0 F1 B1"};  // B0 cannot start with the F0 it needs
  CHECK(!plan_schedule_faults(plan, 2).empty());
}

TEST_CASE("Joined actions are written with an ampersand") {
  std::vector<Action> actions;
  REQUIRE(parse_actions("F0.1&B2.0 W2.0", actions));
  CHECK((actions[0].joined && !actions[1].joined && !actions[2].joined));
  CHECK(actions_text(actions, 2) == "F0.1&B2.0 W2.0");
  CHECK_FALSE(parse_actions("F0&", actions));
  CHECK_FALSE(parse_actions("&F0", actions));
  CHECK_FALSE(parse_actions("F0&&B0", actions));
}

}  // namespace rehearse
