// Modules that predict further tokens: where their weights are, who sums what, folded as in full.
#include "strategies/memory.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr double kHidden = 1024, kTable = 51200 * kHidden;

Question two_stages(int modules) {
  Question question;
  question.model = small_model(4);
  question.model.tied_embeddings = false;
  question.model.mtp_layers = modules;
  question.plan.pp = 2;
  question.plan.dp = 1;
  question.workload.global_batch = 4;
  question.workload.seq_len = 1024;
  return question;
}

double part(const StageMemory& memory, const std::string& name) {
  for (const MemoryPart& p : memory.parts)
    if (p.name == name) return p.bytes;
  return 0;
}

StageMemory last_stage(const Question& question) {
  return stage_memory(question.model, question.plan, question.workload,
                      make_schedule(question.plan.schedule, 2, 1, 4))
      .back();
}

double data_bytes(const Simulated& run, int rank) {
  return run.of(Rank{rank}).bytes[static_cast<std::size_t>(CommKind::Data)];
}

}  // namespace

TEST_CASE("the last stage holds modules for further tokens and a copy of the embedding") {
  const Question with = two_stages(2), without = two_stages(0);
  const double layer = static_cast<double>(layer_parameters(with.model));
  const double norms = 2 * kHidden;  // a LayerNorm
  const double more = 2 * (layer + 2 * kHidden * kHidden + 3 * norms) + kTable;
  const StageMemory memory = last_stage(with), plain = last_stage(without);
  CHECK(part(memory, "weights") - part(plain, "weights") == Approx(2 * more));
  CHECK(part(memory, "gradients") - part(plain, "gradients") == Approx(4 * more));
  CHECK(part(memory, "optimizer") - part(plain, "optimizer") == Approx(12 * more));
  // Three losses instead of one; logits in 16 bits stay one loss's.
  const double logits = 1024.0 * 51200, ends = 2 * 2 * 1024 * kHidden;
  CHECK(part(memory, "logits and loss") - part(plain, "logits and loss") ==
        Approx(2 * (4 * logits + ends)));
  Question halved = with;
  halved.plan.moment_precision = Precision::Bf16;
  CHECK(part(last_stage(halved), "optimizer") == Approx(part(memory, "optimizer") * 8 / 12));
}

TEST_CASE("first and last stage sum the gradients of the embedding that modules share") {
  const FlatCosts costs;
  const Cluster cluster = build(dgx_spec(1));
  Question question = two_stages(1);
  question.plan.dp = 4;
  question.workload.global_batch = 16;
  const Simulated run = simulate_plan(question, cluster, costs);
  const double layer = static_cast<double>(layer_parameters(question.model));
  const double first = 2 * layer + kTable + 1024 * kHidden;
  const double module = layer + 2 * kHidden * kHidden + 6 * kHidden;
  const double last = 2 * layer + 2 * kHidden + kTable + module + kTable;
  CHECK(data_bytes(run, 0) == Approx(4 * (first + kTable)));
  CHECK(data_bytes(run, 4) == Approx(4 * (last + kTable)));
  question.model.tied_embeddings = true;  // the head's table is the copy
  const Simulated tied = simulate_plan(question, cluster, costs);
  CHECK(data_bytes(tied, 4) == Approx(4 * (last - kTable + kTable)));
}

TEST_CASE("a stage with both ends needs no copy of the embedding") {
  Question question = two_stages(1);
  question.plan.pp = 1;
  question.plan.dp = 2;
  const auto memory = stage_memory(question.model, question.plan, question.workload,
                                   make_schedule(question.plan.schedule, 1, 1, 2));
  const ParameterCount all = count_parameters(question.model);
  CHECK(part(memory.front(), "weights") == Approx(2 * static_cast<double>(all.total())));
}

TEST_CASE("folded as in full, a step with modules for further tokens takes the same time") {
  const FlatCosts costs;
  const Cluster cluster = build(dgx_spec(2));
  for (const int experts : {0, 8})
    for (const ScheduleKind kind : {ScheduleKind::OneFOneB, ScheduleKind::DualPipe}) {
      CAPTURE(experts, static_cast<int>(kind));
      Question question = two_stages(1);
      question.plan.dp = 8;
      question.plan.zero = 1;
      question.plan.schedule = kind;
      question.workload.global_batch = 64;
      if (experts > 0) {
        question.model.experts = {.count = experts, .active = 2, .ffn = 2048};
        question.plan.ep = 4;
      }
      const double folded_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
      question.lowering.fidelity = Fidelity::Full;
      CHECK(folded_s ==
            Approx(simulate_plan(question, cluster, costs).metrics.step_time_s).epsilon(1e-9));
      question.model.mtp_layers = 0;
      CHECK(folded_s > simulate_plan(question, cluster, costs).metrics.step_time_s);
    }
}
