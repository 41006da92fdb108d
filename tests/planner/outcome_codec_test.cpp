#include "planner/outcome_codec.h"

#include <stdexcept>

#include "tests/catch.h"

using namespace rehearse;

namespace {

PlanOutcome sample() {
  PlanOutcome outcome;
  outcome.plan.name = "hybrid";
  outcome.plan.tp = 8;
  outcome.plan.layer_split = {3, 4, 5};
  outcome.plan.rank_order = {Axis::Data, Axis::Tensor, Axis::Pipeline, Axis::Context};
  outcome.faults = {{"/tp", "does not divide", "choose 4"}, {"/pp", "", ""}};
  outcome.fits = false;
  outcome.metrics.step_time_s = 0.1 + 0.2;
  outcome.metrics.devices.resize(3);
  outcome.metrics.devices[2].work_s[1] = 1e-300;
  outcome.metrics.links = {{.link = 4, .bytes = 1e18, .utilisation = 0.5}};
  outcome.stages.push_back({.stage = 1,
                            .time = outcome.metrics.devices[2],
                            .memory = {.stage = 1, .parts = {{"weights", 7e9}}, .in_flight = 3},
                            .memory_capacity_bytes = 8e10});
  outcome.devices.push_back({.representative = Rank{5}, .members = 16, .stage = 1});
  outcome.used_links.push_back({.name = "nic-up 3", .kind = "nic-up", .members = 2});
  outcome.timeline.tags = {"qkv", ""};
  outcome.timeline.events.push_back({.rank = 5, .tag = 1, .start_s = -0.0, .end_s = 2});
  outcome.assumptions = {"one", std::string("a\0b", 3)};
  outcome.evidence_share[3] = 1;
  outcome.prices = {0.1, 0.02, {{"adam", CostSource::Scaled, 0.3}}};
  outcome.expected_error = {0.25, "published runs"};
  outcome.balance = {{"layers of stages", {{"even", 2, false}, {"balanced", 1.5, true}}}};
  return outcome;
}

}  // namespace

TEST_CASE("an outcome comes out of its bytes as it went in") {
  const std::string bytes = pack_outcome(sample());
  const PlanOutcome back = unpack_outcome(bytes);
  CHECK(back.plan.name == "hybrid");
  CHECK(back.plan.rank_order == sample().plan.rank_order);
  CHECK(back.faults[0].hint == "choose 4");
  CHECK_FALSE(back.fits);
  CHECK(back.metrics.step_time_s == 0.1 + 0.2);
  CHECK(back.metrics.devices[2].work_s[1] == 1e-300);
  CHECK(back.stages[0].memory.parts[0].name == "weights");
  CHECK(back.devices[0].representative.value == 5);
  CHECK(back.assumptions[1].size() == 3);
  CHECK(back.prices.weakest[0].name == "adam");
  CHECK(back.expected_error.source == "published runs");
  CHECK(back.balance[0].ways[1].is_used);
  CHECK(pack_outcome(back) == bytes);
}

TEST_CASE("bytes that end early or go on are refused wherever they are cut") {
  const std::string bytes = pack_outcome(sample());
  for (std::size_t size = 0; size < bytes.size(); size += 7)
    CHECK_THROWS_AS(unpack_outcome(std::string_view(bytes).substr(0, size)), std::runtime_error);
  CHECK_THROWS_AS(unpack_outcome(bytes + "x"), std::runtime_error);
}
