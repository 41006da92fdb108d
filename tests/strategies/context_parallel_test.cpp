// Context parallelism against closed forms: bytes that go round, FLOPs that causality leaves, the
// pace of a ring that is bound by its blocks, by its hops, or by its last rank.
#include <algorithm>
#include <cmath>

#include "kernels/layer_parts.h"
#include "strategies/collective_flows.h"
#include "strategies/memory.h"
#include "tests/catch.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr auto kContext = static_cast<std::size_t>(CommKind::Context);

Question context_question(int cp, int tp = 1) {
  Question question;
  question.model = small_model(4);
  question.model.kv_heads = 8;
  question.model.tied_embeddings = false;
  question.plan.tp = tp;
  question.plan.cp = cp;
  question.plan.dp = 1;
  question.workload.global_batch = 2;
  question.workload.seq_len = 4096;
  question.model.max_seq_len = 4096;
  return question;
}

LayerShape shape_of(const Question& question) {
  return layer_shape(question.model, question.plan, question.workload.seq_len);
}

double flops_of(const std::vector<LayerItem>& items) {
  double flops = 0;
  for (const LayerItem& item : items)
    if (!item.is_collective && item.op.family == OperatorFamily::Attention) flops += item.op.flops;
  return flops;
}

Simulated run(const Question& question) {
  return simulate_plan(question, build(dgx_spec(std::max(1, world_size(question.plan) / 8))),
                       FlatCosts());
}

/// Attention blocks and hops cost what they are given; everything else nothing.
class BlockCosts : public CostModel {
 public:
  BlockCosts(double causal_s, double block_s) : causal_s_(causal_s), block_s_(block_s) {}
  Cost cost(const Operator& op) const override {
    if (op.family != OperatorFamily::Attention || op.pass != Pass::Forward) return {};
    return {op.causal ? causal_s_ : block_s_, CostSource::DataSheet, 0};
  }
  double launch_s() const override { return 0; }
  std::string description() const override { return "blocks of attention alone"; }

 private:
  double causal_s_, block_s_;
};

/// The forward of the only micro-batch, from its begin to its end on a rank.
double forward_s(const Simulated& run, Rank rank) {
  const std::int32_t device = run.step.device_of_rank[static_cast<std::size_t>(rank.value)];
  double begin_s = 1e9, end_s = 0;
  const StepGraph& graph = run.step.graph;
  for (std::size_t i = 0; i < graph.tasks.size(); ++i) {
    const Task& task = graph.tasks[i];
    if (task.kind != TaskKind::Compute || task.device != device) continue;
    if (graph.labels[static_cast<std::size_t>(task.label)] != "forward") continue;
    begin_s = std::min(begin_s, run.record.start_s[i]);
    end_s = std::max(end_s, run.record.finish_s[i]);
  }
  return end_s - begin_s;
}

}  // namespace

TEST_CASE("a ring moves exactly its keys and values, and back their gradients too") {
  const int cp = GENERATE(2, 4, 8);
  const int tp = GENERATE(1, 2);
  const bool overlap = GENERATE(false, true);
  Question question = context_question(cp, tp);
  question.plan.overlap.context = overlap;
  const Simulated simulated = run(question);
  const double layers = 4, micro_batches = 2;
  const double kv_bytes = 2.0 * question.workload.seq_len * 8 / tp * 64 * 2;  // K and V, 16 bits
  const double forward = kv_bytes * (cp - 1) / cp;
  for (const DeviceMetrics& device : simulated.metrics.devices)
    CHECK(device.bytes[kContext] == Approx(layers * micro_batches * 3 * forward).epsilon(1e-12));
}

TEST_CASE("all-to-alls hand over queries, keys, values and the result, and back their gradients") {
  const int cp = GENERATE(2, 4);
  Question question = context_question(cp, 2);
  question.plan.context = ContextKind::AllToAll;
  const Simulated simulated = run(question);
  const double tokens = question.workload.seq_len / double(cp);
  const double one_way = tokens * (2 * 16 + 2 * 8) / 2 * 64 * 2;
  for (const DeviceMetrics& device : simulated.metrics.devices)
    CHECK(device.bytes[kContext] == Approx(4 * 2 * 2 * one_way).epsilon(1e-12));
}

TEST_CASE("context ranks share out the FLOPs of attention") {
  const int cp = GENERATE(2, 4, 8);
  Question question = context_question(1);
  const LayerShape whole = shape_of(question);
  question.plan.cp = cp;
  LayerShape shape = shape_of(question);
  CHECK(cp * flops_of(layer_forward(shape)) == Approx(flops_of(layer_forward(whole))));
  CHECK(cp * flops_of(layer_backward(shape)) == Approx(flops_of(layer_backward(whole))));
  shape.context_balanced = false;
  double sum = 0, last = 0;
  for (shape.context_rank = 0; shape.context_rank < cp; ++shape.context_rank)
    sum += last = flops_of(layer_forward(shape));
  CHECK(sum == Approx(flops_of(layer_forward(whole))));
  // Of the c² half squares the last rank has one causal block and c − 1 whole ones.
  CHECK(last / sum == Approx((2.0 * cp - 1) / (cp * cp)));
  if (cp <= 8) {
    shape = shape_of(question);
    shape.context = ContextKind::AllToAll;
    CHECK(cp * flops_of(layer_forward(shape)) == Approx(flops_of(layer_forward(whole))));
  }
}

TEST_CASE("a ring goes at the pace of its blocks or of its hops, whichever is slower") {
  const double block_s = GENERATE(1e-6, 5e-3);
  const bool overlap = GENERATE(true, false);
  Question question = context_question(4);
  question.model.layers = 1;
  question.workload.global_batch = 1;
  question.plan.overlap.context = overlap;
  const Cluster cluster = build(dgx_spec(1));
  const Simulated simulated = simulate_plan(question, cluster, BlockCosts(2 * block_s, block_s));
  const LayerShape shape = shape_of(question);
  const double hop_bytes = 2.0 * 1024 * 8 * 64 * 2;
  const double hop_s = nccl_choice(CollectiveKind::SendReceive,
                                   communicator_shape(cluster, {GpuId{0}, GpuId{1}}), hop_bytes)
                           .seconds(hop_bytes);
  const double expected =
      overlap ? std::max(2 * block_s, hop_s) + 2 * std::max(block_s, hop_s) + block_s
              : 2 * block_s + 3 * (hop_s + block_s);
  CHECK(forward_s(simulated, Rank{0}) == Approx(expected).epsilon(1e-9));
}

TEST_CASE("without balance the last context rank sets the pace and the first waits") {
  Question question = context_question(4);
  question.model.layers = 1;
  question.workload.global_batch = 1;
  question.plan.context_balanced = false;
  const double block_s = 10e-3;
  const Cluster cluster = build(dgx_spec(1));
  const Simulated simulated = simulate_plan(question, cluster, BlockCosts(block_s / 2, block_s));
  CHECK(forward_s(simulated, Rank{3}) == Approx(3.5 * block_s).epsilon(1e-9));
  constexpr auto attention = static_cast<std::size_t>(WorkKind::Attention);
  for (int r = 0; r < 4; ++r)
    CHECK(simulated.of(Rank{r}).work_s[attention] == Approx((r + 0.5) * block_s));
  CHECK(simulated.metrics.load_balance == Approx(3.5 / 2));
}

TEST_CASE("gradients are reduced over data and context ranks together") {
  Question question = context_question(4);
  question.plan.dp = 2;
  question.plan.zero = GENERATE(0, 1, 2, 3);
  const Simulated simulated = run(question);
  Question data = question;
  data.plan.cp = 1;
  data.plan.dp = 8;
  data.workload.global_batch = 8;
  const Simulated dense = run(data);
  for (const CommKind kind : {CommKind::Data, CommKind::Parameter}) {
    const auto k = static_cast<std::size_t>(kind);
    INFO(comm_kind_name(kind) << " zero " << question.plan.zero);
    CHECK(simulated.metrics.devices[0].bytes[k] == Approx(dense.metrics.devices[0].bytes[k]));
  }
}

TEST_CASE("context ranks share out activations and what ZeRO shards") {
  Question question = context_question(4);
  question.plan.zero = 1;
  const auto part = [](const StageMemory& memory, const std::string& name) {
    for (const MemoryPart& each : memory.parts)
      if (each.name == name) return each.bytes;
    return 0.0;
  };
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 1, 1, 1);
  const auto memory_of = [&](const Plan& plan) {
    return stage_memory(question.model, plan, question.workload, schedule).front();
  };
  const StageMemory context = memory_of(question.plan);
  Plan alone = question.plan;
  alone.cp = 1;
  const StageMemory one = memory_of(alone);
  CHECK(4 * part(context, "activations") == Approx(part(one, "activations")));
  CHECK(4 * part(context, "optimizer") == Approx(part(one, "optimizer")));
  CHECK(part(context, "weights") == part(one, "weights"));
}
