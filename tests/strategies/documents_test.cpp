// Attention inside documents and windows: FLOPs, imbalance between replicas, ranks and
// micro-batches.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "strategies/attention_load.h"
#include "tests/strategies/lowering_support.h"

namespace rehearse {
namespace {

constexpr int kSeqLen = 8192;

Question document_question(const Plan& plan, int global_batch, const Documents& documents) {
  Question question{.model = small_model(4), .plan = plan, .workload = {}, .lowering = {}};
  question.model.positions = Positions::Rotary;
  question.workload.global_batch = global_batch;
  question.workload.seq_len = kSeqLen;
  question.workload.documents = documents;
  return question;
}

Documents equal_documents(int length) {
  Documents documents;
  documents.mean_tokens = length;
  return documents;
}

Documents mixed_documents(int seed) {
  Documents documents;
  documents.mean_tokens = 1500;
  documents.deviation_tokens = 3000;
  documents.seed = seed;
  return documents;
}

/// Documents from short to long, enough for `sequences`.
Documents sorted_documents(int sequences) {
  Documents documents;
  documents.lengths_file = "sorted.txt";
  for (std::int64_t tokens = 0; tokens < std::int64_t{kSeqLen} * sequences;) {
    const double at = static_cast<double>(tokens) / (double{kSeqLen} * sequences);
    documents.lengths.push_back(static_cast<int>(128 * std::pow(64.0, at)));
    tokens += documents.lengths.back();
  }
  return documents;
}

double step_s(const Question& question, const Cluster& cluster) {
  return simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
}

double attention_s(const Question& question, const Cluster& cluster) {
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  return run.metrics.devices[0].work_s[static_cast<std::size_t>(WorkKind::Attention)];
}

Plan data_parallel(int replicas) {
  Plan plan;
  plan.dp = replicas;
  plan.overlap.gradients = false;
  return plan;
}

/// FLOPs of attention at the flat costs' rate: forward 4 and backward 10 a pair, head and element.
double attention_flops_s(double pairs) {
  const Model model = small_model(4);
  return 14 * pairs * model.heads * model.head_dim * model.layers / 300e12;
}

}  // namespace

TEST_CASE("Equal documents of d tokens take d over the sequence's length of attention's FLOPs") {
  const Cluster cluster = build(dgx_spec(1));
  const double whole_s = step_s(document_question(data_parallel(1), 4, {}), cluster);
  for (const int length : {4096, 1024, 256}) {
    const double packed_s =
        step_s(document_question(data_parallel(1), 4, equal_documents(length)), cluster);
    const double square = double{kSeqLen} * kSeqLen / 2;
    const double saved = 4 * square * (1 - double(length) / kSeqLen);
    CHECK(whole_s - packed_s == Approx(attention_flops_s(saved)).epsilon(1e-9));
  }
}

TEST_CASE("A sliding window takes the pairs inside it") {
  const Cluster cluster = build(dgx_spec(1));
  Question question = document_question(data_parallel(1), 4, {});
  const double whole_s = step_s(question, cluster);
  question.model.window = 1024;
  const double w = 1024, s = kSeqLen;
  const double pairs = w * s - w * (w - 1) / 2 - s / 2;
  CHECK(whole_s - step_s(question, cluster) ==
        Approx(attention_flops_s(4 * (s * s / 2 - pairs))).epsilon(1e-9));
  // A window as long as the sequence is none.
  question.model.window = kSeqLen;
  CHECK(step_s(question, cluster) == Approx(whole_s).epsilon(1e-12));
}

TEST_CASE("Equal documents leave all micro-batches alike") {
  const Question question = document_question(data_parallel(8), 16, equal_documents(1024));
  const AttentionLoad load = attention_load(question.model, question.plan, question.workload);
  CHECK(load.loads.empty());
  CHECK(load.pair_share == 0.125);
  CHECK(load.shares == std::vector<double>{0.125});
}

TEST_CASE("Loads of all micro-batches add up to nothing, and their pairs to those of the step") {
  Plan plan = data_parallel(4);
  plan.micro_batch = 2;
  const Question question = document_question(plan, 32, mixed_documents(1));
  const AttentionLoad load = attention_load(question.model, plan, question.workload);
  REQUIRE(load.loads.size() == 4);
  double sum = 0;
  for (int replica = 0; replica < 4; ++replica) {
    CHECK(load.loads[static_cast<std::size_t>(replica)].size() == 4);
    sum += load.sum(replica, 0);
  }
  CHECK(std::abs(sum) < 1e-12);
  CHECK(load.shares[0] == Approx(load.pair_share).epsilon(1e-12));
  CHECK(load.heaviest > 0.05);
}

TEST_CASE("The step waits for the replica with the most pairs, folded as in full") {
  const Cluster cluster = build(dgx_spec(1));
  for (const int seed : {1, 2, 3}) {
    Question question = document_question(data_parallel(8), 16, mixed_documents(seed));
    const Simulated folded = simulate_plan(question, cluster, FlatCosts());
    CHECK(folded.step.graph.devices.size() == 1);
    const AttentionLoad load = attention_load(question.model, question.plan, question.workload);
    double most = 0;
    for (int replica = 0; replica < 8; ++replica) most = std::max(most, load.sum(replica, 0));
    // The heaviest replica's attention against the mean of the two micro-batches of each.
    const double square = double{kSeqLen} * kSeqLen / 2;
    question.lowering.fidelity = Fidelity::Full;
    const Simulated full = simulate_plan(question, cluster, FlatCosts());
    CHECK(folded.metrics.step_time_s == Approx(full.metrics.step_time_s).epsilon(1e-9));
    // The mean of the folded device takes the optimizer as uneven too.
    CHECK(folded.metrics.load_balance == Approx(full.metrics.load_balance).epsilon(0.003));
    CHECK(folded.metrics.load_balance > 1.001);
    double busiest_s = 0, mean_s = 0;
    for (const DeviceMetrics& device : full.metrics.devices) {
      busiest_s = std::max(busiest_s, device.busy_s());
      mean_s += device.busy_s() / 8;
    }
    CHECK(busiest_s - mean_s == Approx(attention_flops_s(load.pair_share * square * most)));
  }
}

TEST_CASE("Folded pipelines with documents take the step of all replicas to one per cent") {
  const Cluster cluster = build(dgx_spec(4));
  Plan pipeline;
  pipeline.pp = 4;
  pipeline.dp = 8;
  Plan experts_free = pipeline;
  experts_free.virtual_stages = 2;
  experts_free.pp = 2;
  experts_free.dp = 16;
  for (const Plan& plan : {pipeline, experts_free}) {
    double folded_s = 0, full_s = 0;
    for (int seed = 1; seed <= 6; ++seed) {
      Question question = document_question(plan, 64, mixed_documents(seed));
      const double folded = step_s(question, cluster);
      question.lowering.fidelity = Fidelity::Full;
      const double full = step_s(question, cluster);
      CHECK(folded == Approx(full).epsilon(0.01));
      folded_s += folded;
      full_s += full;
    }
    CHECK(folded_s == Approx(full_s).epsilon(0.005));
  }
}

TEST_CASE(
    "Of documents sorted by length, runs of neighbours are dealt out worse than by lot or turn") {
  const Cluster cluster = build(dgx_spec(1));
  Question question = document_question(data_parallel(8), 64, sorted_documents(64));
  const double range_s = step_s(question, cluster);
  question.workload.partition = Deal::Random;
  const double random_s = step_s(question, cluster);
  question.workload.partition = Deal::RoundRobin;
  const double turns_s = step_s(question, cluster);
  CHECK(random_s < 0.97 * range_s);
  CHECK(turns_s < random_s);
  // All have the same work; only who does it differs.
  const auto pairs = [&](Deal partition) {
    question.workload.partition = partition;
    return attention_load(question.model, question.plan, question.workload).pair_share;
  };
  CHECK(pairs(Deal::Range) == Approx(pairs(Deal::Random)).epsilon(1e-12));
}

TEST_CASE("The blocks of a ring have all pairs of a sequence between them") {
  Plan plan;
  plan.dp = 1;
  plan.cp = 4;
  for (const bool balanced : {true, false})
    for (const int window : {0, 700}) {
      plan.context_balanced = balanced;
      const PackedSequence sequence{100, 3000, 17, 2500, 1200, 1375};
      double pairs = 0;
      for (int rank = 0; rank < plan.cp; ++rank)
        for (int hops = 0; hops < plan.cp; ++hops)
          pairs += ring_block_pairs(sequence, plan, kSeqLen, window, rank, hops);
      const double square = double{kSeqLen} * kSeqLen / 2;
      CHECK(pairs == Approx(square * pair_share(sequence, kSeqLen, window)).epsilon(1e-12));
    }
}

TEST_CASE(
    "A balanced ring on whole sequences has equal blocks, and documents take balance from it") {
  Plan plan;
  plan.dp = 1;
  plan.cp = 4;
  Question question = document_question(plan, 4, {});
  CHECK(attention_load(question.model, plan, question.workload).shares[0] == 1);
  const PackedSequence whole{kSeqLen};
  for (int rank = 0; rank < 4; ++rank)
    CHECK(ring_block_pairs(whole, plan, kSeqLen, 0, rank, 1) ==
          ring_block_pairs(whole, plan, kSeqLen, 0, 0, 1));
  // The largest block of each hop counts: never less than the mean of the ranks.
  question.workload.documents = mixed_documents(1);
  const AttentionLoad ring = attention_load(question.model, plan, question.workload);
  CHECK(ring.shares[0] > ring.pair_share);
  // Ranks that exchange heads all have the same.
  plan.context = ContextKind::AllToAll;
  const AttentionLoad heads = attention_load(question.model, plan, question.workload);
  CHECK(heads.shares[0] == Approx(heads.pair_share).epsilon(1e-12));
}

TEST_CASE("Short documents leave an unbalanced ring nothing to be unbalanced about") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan;
  plan.dp = 1;
  plan.cp = 8;
  plan.context_balanced = false;
  const auto ratio = [&](const Documents& documents) {
    Question question = document_question(plan, 4, documents);
    question.workload.seq_len = 8 * kSeqLen;
    const AttentionLoad load = attention_load(question.model, plan, question.workload);
    // Pairs of the last rank over those of the first.
    return load.shares[7] * 7.5 / (load.shares[0] * 0.5);
  };
  CHECK(ratio({}) == Approx(15).epsilon(1e-12));  // 8 blocks less a half, over a half
  CHECK(ratio(equal_documents(1024)) == Approx(1).epsilon(1e-9));
}

TEST_CASE("Rings with documents take the same step folded as in full") {
  const Cluster cluster = build(dgx_spec(1));
  for (const bool balanced : {true, false}) {
    Plan plan;
    plan.dp = 2;
    plan.cp = 4;
    plan.context_balanced = balanced;
    Question question = document_question(plan, 8, mixed_documents(3));
    const double folded = step_s(question, cluster);
    question.lowering.fidelity = Fidelity::Full;
    CHECK(folded == Approx(step_s(question, cluster)).epsilon(0.005));
  }
}

TEST_CASE("Plain attention computes all pairs, masked or not") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan = data_parallel(1);
  plan.attention = AttentionKernel::Plain;
  const double whole_s = attention_s(document_question(plan, 2, {}), cluster);
  CHECK(attention_s(document_question(plan, 2, mixed_documents(1)), cluster) == whole_s);
}

TEST_CASE("Recomputed attention carries its micro-batch's documents too") {
  const Cluster cluster = build(dgx_spec(1));
  Plan plan = data_parallel(1);
  plan.recompute = Recompute::Full;
  const double whole_s = step_s(document_question(plan, 4, {}), cluster);
  const double packed_s = step_s(document_question(plan, 4, equal_documents(1024)), cluster);
  const double square = double{kSeqLen} * kSeqLen / 2;
  // Forward twice: 18 FLOPs a pair instead of 14.
  CHECK(whole_s - packed_s ==
        Approx(attention_flops_s(4 * square * 0.875) * 18 / 14).epsilon(1e-9));
}

}  // namespace rehearse
