#include <map>

#include "strategies/layer_split.h"
#include "tests/plan/schedule_clock.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

using Kind = ScheduleKind;
const std::vector<Kind> kSplitKinds{Kind::ZbH1, Kind::ZbH2, Kind::ZbV, Kind::DualPipe};

Question pipeline_question(Kind kind, int global_batch = 16) {
  Question question;
  question.model = small_model(16);
  question.plan.pp = 4;
  question.plan.tp = 2;
  question.plan.schedule = kind;
  question.workload.global_batch = global_batch;
  question.workload.seq_len = 1024;
  return question;
}

double bytes_of_kind(const StepGraph& graph, CommKind kind) {
  double bytes = 0;
  for (const Task& task : graph.tasks)
    if (task.kind == TaskKind::Comm && task.comm == kind) bytes += task.bytes;
  return bytes;
}

}  // namespace

TEST_CASE("pipelines of every kind take the time that the clock of their schedule says") {
  const double f = 1e-3, b = 1.2e-3, w = 0.7e-3, hop = GENERATE(0.0, 0.1e-3);
  for (const Kind kind : kSplitKinds)
    for (const int p : {2, 4, 8}) {
      CAPTURE(static_cast<int>(kind), p, hop);
      const Schedule schedule = make_schedule(kind, p, kind == Kind::ZbV ? 2 : 1, 3 * p);
      const auto each = [&](double seconds) {
        return std::vector<double>(static_cast<std::size_t>(p), seconds);
      };
      SimulationOptions options;
      options.steps = 1;
      const SimulationRecord record =
          simulate(pipeline_graph(schedule, {each(f), each(b), each(w), hop}), options);
      const double clock_s = ScheduleClock(schedule, {f, b, w, hop}).makespan_s();
      // Transfers of one stage and direction follow each other; none of these wait for that.
      CHECK(record.end_s - record.begin_s == Approx(clock_s).epsilon(1e-9));
    }
}

TEST_CASE("a plan does the same work and sends the same bytes under every schedule") {
  const Cluster cluster = build(dgx_spec(2));
  const FlatCosts costs;
  const Simulated plain = simulate_plan(pipeline_question(Kind::OneFOneB), cluster, costs);
  const double boundary = bytes_of_kind(plain.step.graph, CommKind::Pipeline) / 3;
  for (const Kind kind : kSplitKinds) {
    CAPTURE(static_cast<int>(kind));
    const Simulated split = simulate_plan(pipeline_question(kind), cluster, costs);
    CHECK(split.step.executed_flops == Approx(plain.step.executed_flops).epsilon(1e-12));
    // The way down and back crosses twice the boundaries less the turn.
    const double crossings = kind == Kind::ZbV ? 6 : 3;
    CHECK(bytes_of_kind(split.step.graph, CommKind::Pipeline) == Approx(crossings * boundary));
  }
}

TEST_CASE("folded and unfolded steps are equal for schedules with split backwards") {
  const Cluster cluster = build(dgx_spec(2));
  const FlatCosts costs;
  for (const Kind kind : kSplitKinds) {
    CAPTURE(static_cast<int>(kind));
    Question question = pipeline_question(kind);
    question.plan.zero = 1;
    const double folded_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
    question.lowering.fidelity = Fidelity::Full;
    CHECK(simulate_plan(question, cluster, costs).metrics.step_time_s ==
          Approx(folded_s).epsilon(1e-9));
  }
}

TEST_CASE("split backwards shorten the step of an even pipeline") {
  const Cluster cluster = build(dgx_spec(1));
  const FlatCosts costs;
  std::map<Kind, double> step_s;
  for (const Kind kind : {Kind::OneFOneB, Kind::ZbH1, Kind::ZbV, Kind::DualPipe}) {
    Question question = pipeline_question(kind);
    question.model = small_model(32);
    question.model.vocab = 1024;  // a head that does not unbalance the stages
    // A split backward has no weight gradient to hide a tensor collective behind.
    question.plan.overlap.tensor = false;
    step_s[kind] = simulate_plan(question, cluster, costs).metrics.step_time_s;
  }
  CHECK(step_s[Kind::ZbH1] < step_s[Kind::OneFOneB]);
  CHECK(step_s[Kind::DualPipe] < step_s[Kind::OneFOneB]);
  CHECK(step_s[Kind::ZbV] < step_s[Kind::ZbH1]);
}

TEST_CASE("mirrored stages sum the gradients of both their pieces") {
  const Cluster cluster = build(dgx_spec(1));
  const FlatCosts costs;
  Question question = pipeline_question(Kind::DualPipe);
  question.plan.tp = 1;
  const Simulated both = simulate_plan(question, cluster, costs);
  double summed = 0;
  for (const Task& task : both.step.graph.tasks)
    if (task.kind == TaskKind::Comm &&
        both.step.graph.labels[static_cast<std::size_t>(task.label)] ==
            "mirrored gradient all-reduce")
      summed += task.bytes;
  // Each of the two pairs sums its half of the model in fp32; the replicas go together.
  CHECK(summed ==
        Approx(4 * static_cast<double>(count_parameters(question.model).total())).epsilon(0.02));
}

TEST_CASE("a slower half of the cluster gets fewer layers, and the step is shorter for it") {
  ClusterSpec spec = dgx_spec(1);
  spec.groups.push_back(spec.groups[0]);
  spec.groups[1].speed = 0.5;
  const Cluster cluster = build(spec);
  const FlatCosts costs;
  Question question = pipeline_question(Kind::OneFOneB, 32);
  question.plan.tp = 8;
  question.plan.pp = 2;
  question.model.vocab = 1024;
  const Plan plan = resolve(question.plan, cluster.gpu_count());
  const SplitProblem problem =
      split_problem(question.model, plan, question.workload, cluster, {&costs, &costs});
  REQUIRE(problem.stage_pace.size() == 2);
  CHECK(problem.stage_pace[1] == Approx(2 * problem.stage_pace[0]));
  const std::vector<int> split = balanced_split(problem);
  CHECK(split[0] == 11);  // 11 : 5 layers at a pace of 1 : 2, the head on the slower stage
  const double even_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
  question.plan.layer_split = split;
  CHECK(simulate_plan(question, cluster, costs).metrics.step_time_s < even_s);
}
