// Pieces of the model dealt out to stages in runs, in turn or by lot.
#include "plan/dealt_schedule.h"

#include <set>

#include "plan/plan_schedule.h"
#include "plan/rank_map.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr double kForward_s = 1e-3, kBackward_s = 2e-3;  // of a stage's pieces together

double step_seconds(const Schedule& schedule, double hop_s) {
  const auto n = static_cast<std::size_t>(schedule.stages);
  const double pieces = schedule.chunks;
  PipelineTimes times;
  times.forward_s.assign(n, kForward_s / pieces);
  times.input_gradient_s.assign(n, kBackward_s / 2 / pieces);
  times.weight_gradient_s.assign(n, kBackward_s / 2 / pieces);
  times.hop_s = hop_s;
  SimulationOptions options;
  options.steps = 1;
  const SimulationRecord record = simulate(pipeline_graph(schedule, times), options);
  return record.end_s - record.begin_s;
}

int hops(const std::vector<ChunkPlace>& places) {
  int count = 0;
  for (std::size_t i = 1; i < places.size(); ++i) count += places[i].stage != places[i - 1].stage;
  return count;
}

}  // namespace

TEST_CASE("every stage is dealt as many pieces, and each piece once") {
  const Deal deal = GENERATE(Deal::Range, Deal::RoundRobin, Deal::Random);
  const int stages = GENERATE(1, 2, 4, 7), chunks = GENERATE(1, 2, 5);
  CAPTURE(stages, chunks);
  const std::vector<ChunkPlace> places = dealt_places(deal, stages, chunks);
  std::set<std::pair<int, int>> taken;
  for (const ChunkPlace& place : places) {
    CHECK(place.stage >= 0);
    CHECK(place.stage < stages);
    CHECK(place.chunk < chunks);
    taken.insert({place.stage, place.chunk});
  }
  CHECK(taken.size() == static_cast<std::size_t>(stages * chunks));
  if (deal == Deal::Range) CHECK(hops(places) == stages - 1);
  if (deal == Deal::RoundRobin && stages > 1) CHECK(hops(places) == stages * chunks - 1);
  CHECK(places == dealt_places(deal, stages, chunks));
}

TEST_CASE("what is dealt out can be worked on under every order of work") {
  const ScheduleKind kind =
      GENERATE(ScheduleKind::OneFOneB, ScheduleKind::Gpipe, ScheduleKind::LayerWise);
  const Deal deal = GENERATE(Deal::Range, Deal::RoundRobin, Deal::Random);
  const int stages = GENERATE(2, 4), chunks = GENERATE(1, 3), micro_batches = GENERATE(1, 3, 16);
  CAPTURE(stages, chunks, micro_batches);
  const Schedule schedule =
      dealt_schedule(kind, dealt_places(deal, stages, chunks), stages, micro_batches);
  CHECK(schedule_faults(schedule).empty());
  for (int piece = 0; piece < stages * chunks; ++piece) {
    const ChunkPlace place = place_of(schedule, piece, 0);
    CHECK(piece_of(schedule, place.stage, place.chunk) == piece);
  }
}

TEST_CASE("one stage at a time takes all pieces' time and that of every hop between stages") {
  const Deal deal = GENERATE(Deal::Range, Deal::RoundRobin, Deal::Random);
  const int stages = 4, chunks = 3, micro_batches = 5;
  const std::vector<ChunkPlace> places = dealt_places(deal, stages, chunks);
  const double hop_s = 0.1e-3;
  const double expected =
      micro_batches * (stages * (kForward_s + kBackward_s) + 2 * hops(places) * hop_s);
  CHECK(step_seconds(dealt_schedule(ScheduleKind::LayerWise, places, stages, micro_batches),
                     hop_s) == Approx(expected).epsilon(1e-9));
}

TEST_CASE("runs of pieces have the bubble of whole stages") {
  const int stages = GENERATE(2, 4), chunks = GENERATE(2, 3), micro_batches = GENERATE(4, 12);
  CAPTURE(stages, chunks, micro_batches);
  const Schedule schedule = dealt_schedule(
      ScheduleKind::OneFOneB, dealt_places(Deal::Range, stages, chunks), stages, micro_batches);
  CHECK(step_seconds(schedule, 0) ==
        Approx((micro_batches + stages - 1) * (kForward_s + kBackward_s)).epsilon(1e-9));
}

TEST_CASE("a plan's pieces are simulated where they were dealt") {
  const FlatCosts costs;
  Question question;
  question.model = small_model(12);
  question.plan.pp = 4;
  question.plan.dp = 2;
  question.plan.virtual_stages = 3;
  question.plan.schedule = ScheduleKind::LayerWise;
  question.workload.global_batch = 8;
  question.workload.seq_len = 1024;
  const Cluster cluster = build(dgx_spec(1));
  const double boundary_bytes = 1024.0 * 1024 * 2;
  for (const Deal deal : {Deal::Range, Deal::Random}) {
    question.plan.stage_placement = deal;
    double sent = 0;
    const Plan plan = question.plan;
    const Schedule schedule = plan_schedule(plan, 4);
    const LoweredStep step = lower(
        {question.model, plan, question.workload, cluster, schedule, {&costs}}, question.lowering);
    const SimulationRecord record = simulate(step.graph, question.simulation);
    const StepMetrics metrics = measure(step.graph, record);
    for (const Rank rank : RankMap(plan).group(Axis::Pipeline, {}))
      sent += metrics
                  .devices[static_cast<std::size_t>(
                      step.device_of_rank[static_cast<std::size_t>(rank.value)])]
                  .bytes[static_cast<std::size_t>(CommKind::Pipeline)];
    // Of each of 4 micro-batches, forward and back over each hop; the sender counts it.
    CHECK(sent == Approx(4 * 2 * hops(plan_places(plan)) * boundary_bytes));
  }
}

TEST_CASE("folded and full simulations of dealt pieces are equal") {
  const FlatCosts costs;
  Question question;
  question.model = small_model(8);
  question.plan.pp = 2;
  question.plan.tp = 2;
  question.plan.dp = 4;
  question.plan.virtual_stages = 4;
  question.plan.stage_placement = Deal::Random;
  question.workload.global_batch = 16;
  question.workload.seq_len = 1024;
  const Cluster cluster = build(dgx_spec(2));
  const Schedule schedule = plan_schedule(question.plan, 4);
  std::vector<double> steps_s;
  for (const Fidelity fidelity : {Fidelity::Folded, Fidelity::Full}) {
    question.lowering.fidelity = fidelity;
    const LoweredStep step =
        lower({question.model, question.plan, question.workload, cluster, schedule, {&costs}},
              question.lowering);
    const SimulationRecord record = simulate(step.graph, question.simulation);
    steps_s.push_back(record.end_s - record.begin_s);
  }
  CHECK(steps_s[0] == Approx(steps_s[1]).epsilon(1e-9));
}

TEST_CASE("schedules that place pieces themselves refuse to have them dealt") {
  Plan plan;
  plan.dp = 1;
  plan.pp = 4;
  plan.virtual_stages = 2;
  plan.stage_placement = Deal::Random;
  CHECK(plan_schedule_faults(plan, 8).empty());
  plan.schedule_group = 4;
  REQUIRE(plan_schedule_faults(plan, 8).size() == 1);
  CHECK(plan_schedule_faults(plan, 8).front().pointer == "/schedule_group");
  plan.schedule_group = 0;
  plan.schedule = ScheduleKind::ZbV;
  REQUIRE(plan_schedule_faults(plan, 8).size() == 1);
  CHECK(plan_schedule_faults(plan, 8).front().pointer == "/stage_placement");
}
