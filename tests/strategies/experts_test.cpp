#include <cmath>

#include "plan/mixture.h"
#include "strategies/collective_flows.h"
#include "strategies/expert_groups.h"
#include "strategies/memory.h"
#include "tests/catch.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

/// Products by their FLOPs alone, and a router that costs nothing.
class ProductCosts : public CostModel {
 public:
  Cost cost(const Operator& op) const override {
    const bool counts = op.family != OperatorFamily::Memory && op.name != OperatorName::Router;
    return {counts ? op.flops / 300e12 : 0, CostSource::DataSheet, 0};
  }
  double launch_s() const override { return 0; }
  std::string description() const override { return "products alone"; }
};

/// Eight experts of which a token passes two, together as wide as the dense block.
Model small_mixture(int layers) {
  Model model = small_model(layers);
  model.tied_embeddings = false;
  model.experts = {.count = 8, .active = 2, .ffn = model.ffn / 2};
  return model;
}

Question question_of(const Model& model, int nodes, int ep) {
  Question question;
  question.model = model;
  question.plan.dp = 8 * nodes;
  question.plan.ep = ep;
  question.workload.global_batch = 2 * question.plan.dp;
  question.workload.seq_len = 1024;
  return question;
}

double of_kind(const std::array<double, kCommKindCount>& values, CommKind kind) {
  return values[static_cast<std::size_t>(kind)];
}

double computing(const DeviceMetrics& metrics) {
  double seconds = 0;
  for (const double work : metrics.work_s) seconds += work;
  return seconds;
}

std::string faults_of(const Plan& plan, const Model& model, int gpus) {
  std::string all;
  Workload workload;
  workload.global_batch = 64;
  for (const PlanFault& fault : plan_faults(resolve(plan, gpus), model, workload, gpus))
    all += fault.pointer + ": " + fault.message + "\n";
  return all;
}

}  // namespace

TEST_CASE("a balanced mixture takes the time of the dense layer and of its all-to-alls") {
  const ProductCosts costs;
  const Cluster cluster = build(dgx_spec(1));
  const Simulated dense =
      simulate_plan(question_of(without_experts(small_mixture(4)), 1, 1), cluster, costs);
  const Simulated mixture = simulate_plan(question_of(small_mixture(4), 1, 8), cluster, costs);
  const DeviceMetrics &plain = dense.of(Rank{0}), &mixed = mixture.of(Rank{0});
  CHECK(computing(mixed) == Approx(computing(plain)).epsilon(1e-12));
  // Of 4 layers and 2 micro-batches, two forward and two backward, of 1024 tokens' two rows.
  const double bytes = 1024.0 * 2 * 1024 * 2;
  std::vector<GpuId> group;
  for (int i = 0; i < 8; ++i) group.push_back(GpuId{i});
  const double each_s =
      nccl_choice(CollectiveKind::AllToAll, communicator_shape(cluster, group), bytes)
          .seconds(bytes);
  CHECK(of_kind(mixed.exposed_s, CommKind::Expert) == Approx(4 * 2 * 4 * each_s).epsilon(1e-9));
  CHECK(of_kind(mixed.bytes, CommKind::Expert) == Approx(4 * 2 * 4 * bytes));
  CHECK(of_kind(plain.bytes, CommKind::Expert) == 0);
}

TEST_CASE("experts are reduced by those that have copies of them") {
  const FlatCosts costs;
  const Model model = small_mixture(4);
  const double each = 2.0 * 1024 * 2048 + 2048 + 1024;  // of one expert: two matrices, two biases
  const double all = static_cast<double>(count_parameters(model, padded_vocab(model, 1)).total());
  const double others = all - 4 * 8 * each;
  const auto reduced = [&](int nodes, int ep) {
    const Cluster cluster = build(dgx_spec(nodes));
    const Simulated run = simulate_plan(question_of(model, nodes, ep), cluster, costs);
    return of_kind(run.of(Rank{0}).bytes, CommKind::Data);
  };
  CHECK(reduced(1, 1) == Approx(4 * all));
  CHECK(reduced(1, 2) == Approx(4 * (others + 4 * 4 * each)));
  CHECK(reduced(1, 8) == Approx(4 * others));  // nobody else has the same experts
  CHECK(reduced(2, 8) == Approx(4 * (others + 4 * each)));
}

TEST_CASE("imbalance costs as much as its tokens") {
  const ProductCosts costs;
  const Cluster cluster = build(dgx_spec(1));
  Question question = question_of(small_mixture(4), 1, 8);
  const double even_s = computing(simulate_plan(question, cluster, costs).of(Rank{0}));
  question.workload.routing.imbalance = 1.5;
  const double busy_s = computing(simulate_plan(question, cluster, costs).of(Rank{0}));
  // Three products of two matrices, for 4 layers and 2 micro-batches.
  const double experts_s = 3 * 4 * 2 * 2.0 * 2 * 1024 * 2 * 1024 * 2048 / 300e12;
  CHECK(busy_s - even_s == Approx(0.5 * experts_s).epsilon(1e-9));
}

TEST_CASE("a token lies on as many nodes as the hypergeometric distribution says") {
  CHECK(nodes_of_token(1, 256, 8) == 1);
  CHECK(nodes_of_token(8, 4, 1) == Approx(1));
  // Two of four experts on two nodes of two: both on one node in a third of the cases.
  CHECK(nodes_of_token(2, 2, 2) == Approx(1.0 / 3 + 2 * 2.0 / 3));
  CHECK(nodes_of_token(4, 32, 8) == Approx(3.627).epsilon(1e-3));
}

TEST_CASE("a limit of nodes sends a token once to each of them") {
  const ExpertDeal all{.ranks = 64, .nodes = 8, .experts = 256, .active = 8};
  CHECK(expert_traffic(all).network == Approx(7.0 / 8));
  CHECK(expert_traffic(all).inside == Approx(7.0 / 8));
  ExpertDeal limited = all;
  limited.node_limit = 4;
  CHECK(expert_traffic(limited).network == Approx(7.0 / 8 * nodes_of_token(4, 32, 8) / 8));
  CHECK(expert_traffic({.ranks = 8, .experts = 8, .active = 2}).network == 0);
}

TEST_CASE("the flows of a dispatch leave each node evenly") {
  const Cluster cluster = build(dgx_spec(2, FabricKind::RailOptimized));
  std::vector<GpuId> group;
  for (int i = 0; i < 16; ++i) group.push_back(GpuId{i});
  const ExpertTraffic traffic = expert_traffic({.ranks = 16, .nodes = 2, .experts = 16});
  std::vector<double> sent(16, 0), received(16, 0);
  for (const PhysicalFlow& flow : expert_flows(cluster, group, traffic)) {
    if (cluster.node_of(flow.from) == cluster.node_of(flow.to)) continue;
    sent[static_cast<std::size_t>(flow.from.value)] += flow.bytes_factor;
    received[static_cast<std::size_t>(flow.to.value)] += flow.bytes_factor;
  }
  for (int i = 0; i < 16; ++i) {
    CHECK(sent[static_cast<std::size_t>(i)] == Approx(0.5));
    CHECK(received[static_cast<std::size_t>(i)] == Approx(0.5));
  }
}

TEST_CASE("folded, by replica and in full, mixtures take the same time") {
  const FlatCosts costs;
  struct Case {
    int nodes, tp, expert_tp, ep, pp, zero, node_limit;
    bool overlap;
    int cp = 1;
  };
  const Case cases[] = {{2, 1, 0, 8, 1, 0, 0, true},    {2, 1, 0, 4, 2, 1, 0, false},
                        {4, 1, 0, 16, 2, 1, 2, true},   {2, 2, 2, 4, 2, 0, 0, true},
                        {4, 2, 1, 8, 1, 1, 0, true},    {4, 2, 0, 8, 2, 1, 0, false},
                        {2, 1, 0, 4, 1, 2, 0, true},    {2, 1, 0, 8, 1, 3, 0, true},
                        {2, 1, 0, 16, 1, 3, 0, false},  {2, 1, 0, 8, 1, 0, 0, true, 2},
                        {2, 1, 0, 2, 1, 1, 0, true, 4}, {4, 2, 1, 8, 2, 1, 0, true, 2},
                        {2, 1, 0, 4, 1, 3, 0, true, 2}};
  for (const Case& one : cases) {
    CAPTURE(one.nodes, one.tp, one.cp, one.ep, one.pp, one.zero);
    Question question;
    question.model = small_mixture(4);
    question.model.experts.count = 16;
    Plan& plan = question.plan;
    plan.tp = one.tp;
    plan.sequence_parallel = one.tp > 1;
    plan.experts = {.tp = one.expert_tp, .node_limit = one.node_limit};
    plan.ep = one.ep;
    plan.pp = one.pp;
    plan.cp = one.cp;
    plan.dp = one.nodes * 8 / one.tp / one.pp / one.cp;
    plan.zero = one.zero;
    plan.overlap.gradients = plan.overlap.parameters = one.overlap;
    plan.bucket_bytes = 60e6;
    question.workload.global_batch = plan.dp * one.pp * 2;
    question.workload.seq_len = 1024;
    question.interfere = one.overlap;
    const Cluster cluster = build(dgx_spec(one.nodes, FabricKind::RailOptimized));
    std::vector<double> seconds;
    for (const Fidelity fidelity : {Fidelity::Folded, Fidelity::Replicas, Fidelity::Full}) {
      question.lowering.fidelity = fidelity;
      seconds.push_back(simulate_plan(question, cluster, costs).metrics.step_time_s);
    }
    CHECK(std::abs(seconds[1] - seconds[0]) <= 1e-9 * seconds[0]);
    CHECK(std::abs(seconds[2] - seconds[0]) <= 1e-9 * seconds[0]);
  }
}

TEST_CASE("joined micro-batches hide each other's dispatch, folded as in full") {
  const FlatCosts costs;
  for (const int ep : {8, 16}) {
    CAPTURE(ep);
    Question question;
    question.model = small_mixture(8);
    question.model.experts.count = 16;
    Plan& plan = question.plan;
    plan.schedule = ScheduleKind::DualPipe;
    plan.pp = 2;
    plan.dp = 16;
    plan.ep = ep;
    plan.zero = 1;
    question.workload.global_batch = plan.dp * 8;
    question.workload.seq_len = 1024;
    const Cluster cluster = build(dgx_spec(4, FabricKind::RailOptimized));
    const Simulated inline_run = simulate_plan(question, cluster, costs);
    plan.overlap.experts = true;
    const Simulated folded = simulate_plan(question, cluster, costs);
    question.lowering.fidelity = Fidelity::Full;
    const Simulated full = simulate_plan(question, cluster, costs);
    CHECK(folded.metrics.step_time_s < inline_run.metrics.step_time_s);
    CHECK(std::abs(full.metrics.step_time_s - folded.metrics.step_time_s) <=
          1e-9 * folded.metrics.step_time_s);
    // As much is computed and sent as before; less of it is waited for.
    const DeviceMetrics &before = inline_run.of(Rank{0}), &after = folded.of(Rank{0});
    CHECK(computing(after) == Approx(computing(before)).epsilon(1e-9));
    CHECK(of_kind(after.bytes, CommKind::Expert) == of_kind(before.bytes, CommKind::Expert));
    CHECK(of_kind(after.exposed_s, CommKind::Expert) < of_kind(before.exposed_s, CommKind::Expert));
    CHECK(of_kind(after.hidden_s, CommKind::Expert) > 0);
  }
}

TEST_CASE("memory of a mixture has a rank's experts once, their states over their copies") {
  const Model model = small_mixture(4);
  Plan plan;
  plan.dp = 16;
  plan.ep = 8;
  plan.zero = 1;
  Workload workload;
  workload.global_batch = 16;
  workload.seq_len = 1024;
  const StageMemory memory =
      stage_memory(model, plan, workload, make_schedule(plan.schedule, 1, 1, 1)).front();
  const double experts = 4 * (2.0 * 1024 * 2048 + 2048 + 1024);  // one a layer
  const double others =
      static_cast<double>(count_parameters(model, padded_vocab(model, 1)).total()) - 8 * experts;
  const auto part = [&](const std::string& name) {
    for (const MemoryPart& one : memory.parts)
      if (one.name == name) return one.bytes;
    return 0.0;
  };
  CHECK(part("weights") == Approx(2 * (experts + others)));
  CHECK(part("gradients") == Approx(4 * (experts + others)));
  CHECK(part("optimizer") == Approx(12 * (experts / 2 + others / 16)));
}

namespace {

constexpr double kExpertParameters = 2.0 * 1024 * 2048 + 2048 + 1024;  // of one, with its biases

/// Parameters of the small mixture that every data rank has copies of.
double common_parameters(const Model& model) {
  return static_cast<double>(count_parameters(model, padded_vocab(model, 1)).total()) -
         model.layers * model.experts.count * kExpertParameters;
}

}  // namespace

TEST_CASE("sharded weights of experts go over the ranks with copies, the rest over all") {
  const FlatCosts costs;
  const int ep = GENERATE(2, 4, 8);
  const int zero = GENERATE(2, 3);
  CAPTURE(ep, zero);
  Question question = question_of(small_mixture(4), 1, ep);
  question.plan.zero = zero;
  question.plan.reshard_after_forward = false;
  const Simulated run = simulate_plan(question, build(dgx_spec(1)), costs);
  const double experts = 4 * 8.0 / ep * kExpertParameters, copies = 8.0 / ep;
  const double common = common_parameters(question.model), micro_batches = 2;
  const DeviceMetrics& rank = run.of(Rank{0});
  // fp32 gradients of each micro-batch; experts without copies have nobody to reduce with.
  CHECK(of_kind(rank.bytes, CommKind::Data) ==
        Approx(micro_batches * 4 * (common + (copies > 1 ? experts : 0))));
  // Of each gather its own shard: once a micro-batch where weights stay for the backward, but for
  // the embedding, whose next forward follows its backward; ZeRO-2 once a step.
  const double gathers = zero == 3 ? micro_batches : 1;
  const double embedding = (51200.0 + 1024) * 1024;
  CHECK(of_kind(rank.bytes, CommKind::Parameter) ==
        Approx(gathers * 2 * (common / 8 + (copies > 1 ? experts / copies : 0)) -
               (gathers - 1) * 2 * embedding / 8));
}

TEST_CASE("memory of sharded experts: a share of the copies, whole where there is one") {
  const Model model = small_mixture(4);
  Workload workload;
  workload.global_batch = 16;
  workload.seq_len = 1024;
  Plan plan;
  plan.dp = 16;
  plan.ep = GENERATE(4, 8);
  plan.zero = 3;
  plan.prefetch = 0;
  const StageMemory memory =
      stage_memory(model, plan, workload, make_schedule(plan.schedule, 1, 1, 1)).front();
  const double experts = 4 * 8.0 / plan.ep * kExpertParameters, copies = 16.0 / plan.ep;
  const double table = (51200.0 + 1024) * 1024;  // embedding and positions: the largest unit
  for (const MemoryPart& part : memory.parts)
    if (part.name == "weights")
      CHECK(part.bytes ==
            Approx(2 * (common_parameters(model) / 16 + experts / copies + table)).epsilon(0.001));
}

TEST_CASE("sets of shards hold all experts, and sum what each holds with the others") {
  const FlatCosts costs;
  const int ep = GENERATE(2, 4);
  const int zero = GENERATE(2, 3);
  CAPTURE(ep, zero);
  const Cluster cluster = build(dgx_spec(2));
  Question question = question_of(small_mixture(4), 2, ep);
  question.plan.zero = zero;
  question.plan.shard = 4;
  question.plan.reshard_after_forward = false;
  const Simulated run = simulate_plan(question, cluster, costs);
  const double experts = 4 * 8.0 / ep * kExpertParameters, copies = 4.0 / ep;
  const double common = common_parameters(question.model), micro_batches = 2;
  const DeviceMetrics& rank = run.of(Rank{0});
  // Reduced and scattered in a set of four (experts where it has copies), the shards then reduced
  // among four sets.
  CHECK(of_kind(rank.bytes, CommKind::Data) ==
        Approx(micro_batches * 4 *
               (common + (copies > 1 ? experts : 0) + common / 4 + experts / copies)));
  const double gathers = zero == 3 ? micro_batches : 1;
  const double embedding = (51200.0 + 1024) * 1024;
  CHECK(of_kind(rank.bytes, CommKind::Parameter) ==
        Approx(gathers * 2 * (common / 4 + (copies > 1 ? experts / copies : 0)) -
               (gathers - 1) * 2 * embedding / 4));
  // Folded as in full.
  question.lowering.fidelity = Fidelity::Full;
  const Simulated full = simulate_plan(question, cluster, costs);
  CHECK(run.metrics.step_time_s == Approx(full.metrics.step_time_s).epsilon(1e-9));
  // Memory: a quarter of what all have, of experts a share of the set's copies.
  const StageMemory memory = stage_memory(question.model, question.plan, question.workload,
                                          make_schedule(question.plan.schedule, 1, 1, 2))
                                 .front();
  for (const MemoryPart& part : memory.parts)
    if (part.name == "optimizer") CHECK(part.bytes == Approx(12 * (common / 4 + experts / copies)));
}

TEST_CASE("one set of shards over all data ranks is none") {
  const FlatCosts costs;
  const Cluster cluster = build(dgx_spec(2));
  Question question = question_of(small_mixture(4), 2, 4);
  question.plan.zero = 3;
  const double without_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
  question.plan.shard = question.plan.dp;
  CHECK(simulate_plan(question, cluster, costs).metrics.step_time_s == without_s);
}

TEST_CASE("groups of experts fill context ranks before data ranks") {
  const FlatCosts costs;
  const int ep = GENERATE(2, 4, 8);
  CAPTURE(ep);
  Question question = question_of(small_mixture(4), 1, ep);
  question.plan.cp = 4;
  question.plan.dp = 2;
  question.workload.global_batch = 4;
  const Simulated run = simulate_plan(question, build(dgx_spec(1)), costs);
  const double experts = 4 * 8.0 / ep * kExpertParameters;
  const double reduced = common_parameters(question.model) + (ep < 8 ? experts : 0);
  CHECK(of_kind(run.of(Rank{0}).bytes, CommKind::Data) == Approx(4 * reduced));
  // A quarter of 1,024 tokens, two rows each, both ways forward and back, 2 micro-batches.
  CHECK(of_kind(run.of(Rank{0}).bytes, CommKind::Expert) ==
        Approx(4 * 2 * 4 * (256.0 * 2 * 1024 * 2)));
}

TEST_CASE("what cannot be said of experts is refused with its reason") {
  const Model mixture = small_mixture(4), dense = small_model(4);
  Plan plan;
  plan.ep = 8;
  CHECK(faults_of(plan, mixture, 8).empty());
  CHECK(faults_of(plan, dense, 8).find("/ep: small is a dense model") != std::string::npos);
  plan.ep = 3;
  CHECK(faults_of(plan, mixture, 8).find("/ep: 3 ranks cannot share the 8 experts") !=
        std::string::npos);
  plan.ep = 4;
  plan.tp = 2;
  CHECK(faults_of(plan, mixture, 8).find("/sequence_parallel: ") != std::string::npos);
  plan.sequence_parallel = true;
  CHECK(faults_of(plan, mixture, 8).empty());
  CHECK(faults_of(plan, mixture, 4).find("/ep: groups of 4 data ranks") != std::string::npos);
  plan.tp = 4;
  plan.experts.tp = 2;
  CHECK(faults_of(plan, mixture, 16).find("/experts/tp: ") != std::string::npos);
  plan.experts.tp = 1;
  plan.ep = 2;
  CHECK(faults_of(plan, mixture, 16).find("do not fill tensor groups of 4") != std::string::npos);
  plan = {};
  plan.experts.pad = true;
  CHECK(faults_of(plan, mixture, 8).find("/experts/pad: ") != std::string::npos);
  plan = {};
  plan.ep = 2;
  plan.zero = 3;
  plan.shard = 4;
  CHECK(faults_of(plan, mixture, 8).empty());
  plan.ep = 4;
  plan.shard = 2;
  CHECK(faults_of(plan, mixture, 8).find("/shard: 4 ranks hold all experts of a layer together") !=
        std::string::npos);
  plan = {};
  plan.ep = 4;
  plan.cp = 3;
  CHECK(faults_of(plan, mixture, 12).find("begin and end inside the 3 context ranks") !=
        std::string::npos);
  plan = {};
  plan.ep = 2;
  plan.overlap.experts = true;
  CHECK(faults_of(plan, mixture, 8).find("/overlap/experts: ") != std::string::npos);
}
