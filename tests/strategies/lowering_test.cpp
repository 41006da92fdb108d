#include <cmath>
#include <numeric>
#include <random>

#include "plan/schedule.h"
#include "strategies/tensor_overlap.h"
#include "tests/catch.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

template <class T>
T pick(std::mt19937& random, std::initializer_list<T> values) {
  return *(values.begin() + random() % values.size());
}

struct Draw {
  Question question;
  ClusterSpec cluster;
  double launch_s = 0;
};

/// A plan that can be, on a symmetric cluster of eight-GPU nodes.
Draw draw_symmetric(std::mt19937& random) {
  Draw draw;
  Plan& plan = draw.question.plan;
  plan.tp = pick(random, {1, 2, 4, 8, 8, 16});
  plan.pp = pick(random, {1, 2, 4});
  plan.dp = pick(random, {1, 2, 4, 8});
  while (world_size(plan) < 8 || world_size(plan) > 64) plan.dp = plan.dp == 8 ? 1 : plan.dp * 2;
  if (plan.pp > 1) plan.virtual_stages = pick(random, {1, 1, 2});
  plan.schedule = plan.virtual_stages > 1
                      ? ScheduleKind::OneFOneB
                      : pick(random, {ScheduleKind::OneFOneB, ScheduleKind::Gpipe});
  plan.sequence_parallel = plan.tp > 1 && random() % 2;
  plan.zero = static_cast<int>(random() % 4);
  if (plan.zero >= 2) {
    plan.prefetch = static_cast<int>(random() % 3);
    plan.reshard_after_forward = random() % 2;
    plan.reduce_every_micro_batch = random() % 2;
    if (plan.dp > 2 && random() % 2) plan.shard = plan.dp / 2;
  }
  plan.recompute = pick(random, {Recompute::None, Recompute::Full});
  plan.overlap.gradients = random() % 2;
  plan.overlap.parameters = random() % 2;
  plan.overlap.pipeline = random() % 2;
  plan.overlap.tensor = random() % 2;
  plan.bucket_bytes = 60e6;
  if (random() % 3 == 0) {
    plan.offload.optimizer = true;
    plan.offload.gradients = (plan.dp == 1 || plan.zero >= 2) && plan.reduce_every_micro_batch;
    plan.offload.activations = pick(random, {0.0, 0.5, 1.0});
  } else if (plan.zero == 0 && random() % 2) {
    plan.updates.aggregation = Aggregation::LocalSgd;
  }
  if (random() % 2) plan.rank_order = {Axis::Tensor, Axis::Context, Axis::Pipeline, Axis::Data};
  while (world_size(plan) < 64 && plan.cp < 8 && random() % 2) plan.cp *= 2;
  if (16 % (plan.tp * plan.cp) == 0 && random() % 2) plan.context = ContextKind::AllToAll;
  plan.context_balanced = random() % 4 > 0;
  plan.overlap.context = random() % 4 > 0;
  const int m = plan.pp * static_cast<int>(1 + random() % 3);
  draw.question.workload.global_batch = plan.dp * m;
  draw.question.workload.seq_len = 1024;
  draw.question.model = small_model(plan.pp * plan.virtual_stages * 2);
  draw.question.model.tied_embeddings = random() % 2;
  draw.question.interfere = random() % 2;
  draw.launch_s = pick(random, {0.0, 20e-6});
  draw.cluster = dgx_spec(world_size(plan) / 8,
                          pick(random, {FabricKind::SingleSwitch, FabricKind::RailOptimized}));
  draw.cluster.groups[0].node.nic_duplex = pick(random, {1.0, 1.0, 0.7});
  draw.cluster.groups[0].node.nic_goodput = pick(random, {0.96, 0.6});
  return draw;
}

void check_close(const char* what, double a, double b, double scale) {
  CAPTURE(what, a, b);
  CHECK(std::abs(a - b) <= 1e-9 * scale);
}

void check_same(const Simulated& a, const Simulated& b, int ranks) {
  const double step = b.metrics.step_time_s;
  check_close("step_time_s", a.metrics.step_time_s, step, step);
  for (int r = 0; r < ranks; ++r) {
    const DeviceMetrics& x = a.of(Rank{r});
    const DeviceMetrics& y = b.of(Rank{r});
    check_close("busy_s", x.busy_s() + x.exposed_s[0], y.busy_s() + y.exposed_s[0], step);
    check_close("bubble_s", x.bubble_s, y.bubble_s, step);
    check_close("waiting_s", x.waiting_s, y.waiting_s, step);
    for (int kind = 1; kind < kCommKindCount; ++kind) {
      const auto k = static_cast<std::size_t>(kind);
      INFO(comm_kind_name(static_cast<CommKind>(kind)) << " rank " << r);
      check_close("exposed_s", x.exposed_s[k], y.exposed_s[k], step);
      CHECK(x.bytes[k] == Approx(y.bytes[k]));
    }
  }
}

}  // namespace

TEST_CASE("folded, replica by replica and full simulations of symmetric plans are equal",
          "[property]") {
  const auto seed = GENERATE(range(1, 41));
  CAPTURE(seed);
  std::mt19937 random(static_cast<unsigned>(seed));
  Draw draw = draw_symmetric(random);
  const Plan& plan = draw.question.plan;
  CAPTURE(plan.tp, plan.pp, plan.dp, plan.virtual_stages, plan.zero, plan.sequence_parallel);
  CAPTURE(plan.cp, plan.context_balanced, plan.overlap.context);
  CAPTURE(plan.shard, plan.prefetch, plan.reshard_after_forward, plan.reduce_every_micro_batch);
  CAPTURE(plan.overlap.gradients, plan.overlap.parameters, plan.overlap.pipeline, draw.launch_s);
  const Cluster cluster = build(draw.cluster);
  const FlatCosts costs(draw.launch_s);
  draw.question.lowering.fidelity = Fidelity::Full;
  const Simulated full = simulate_plan(draw.question, cluster, costs);
  draw.question.lowering.fidelity = Fidelity::Replicas;
  const Simulated replicas = simulate_plan(draw.question, cluster, costs);
  draw.question.lowering.fidelity = Fidelity::Folded;
  const Simulated folded = simulate_plan(draw.question, cluster, costs);
  check_same(replicas, full, world_size(plan));
  check_same(folded, full, world_size(plan));
  draw.question.simulation.one_by_one = true;
  const Simulated single = simulate_plan(draw.question, cluster, costs);
  check_same(single, folded, world_size(plan));
}

TEST_CASE("parts of every rank sum to the step", "[property]") {
  const auto seed = GENERATE(range(100, 120));
  CAPTURE(seed);
  std::mt19937 random(static_cast<unsigned>(seed));
  Draw draw = draw_symmetric(random);
  draw.question.lowering.fidelity = pick(random, {Fidelity::Full, Fidelity::Folded});
  const Simulated run = simulate_plan(draw.question, build(draw.cluster), FlatCosts(draw.launch_s));
  for (const DeviceMetrics& device : run.metrics.devices) {
    const double sum = device.busy_s() +
                       std::accumulate(device.exposed_s.begin(), device.exposed_s.end(), 0.0) +
                       device.bubble_s + device.waiting_s + device.host_s;
    CHECK(sum == Approx(run.metrics.step_time_s).epsilon(1e-9));
  }
}

TEST_CASE("a layer-wise plan takes the sum of its stages") {
  // One replica, no tensor ranks: compute is serial over stages, and so are the transfers.
  Question question;
  question.plan.pp = 2;
  question.plan.dp = 1;
  question.plan.schedule = ScheduleKind::LayerWise;
  question.model = small_model(10);
  question.model.tied_embeddings = false;
  question.workload = {3, 1024, 0};
  const Cluster cluster = build(dgx_spec(1));
  const FlatCosts costs;
  const Simulated run = simulate_plan(question, cluster, costs);
  double busy = 0, optimizer = 0;
  for (const DeviceMetrics& device : run.metrics.devices) {
    const double update = device.work_s[static_cast<std::size_t>(WorkKind::Optimizer)];
    busy += device.busy_s() - update;
    optimizer = std::max(optimizer, update);
  }
  double transfers = 0, control = 0;
  for (std::size_t t = 0; t < run.step.graph.tasks.size(); ++t) {
    const Task& task = run.step.graph.tasks[t];
    if (task.kind != TaskKind::Comm) continue;
    const double took = run.record.finish_s[t] - run.record.start_s[t];
    (task.comm == CommKind::Pipeline ? transfers : control) += took;
  }
  CHECK(run.metrics.step_time_s == Approx(busy + transfers + control + optimizer).epsilon(1e-9));
}

TEST_CASE("tensor ranks that scatter a transfer send a share each, and all of it else") {
  Question question;
  question.plan.tp = 8;
  question.plan.pp = 2;
  question.plan.dp = 1;
  question.plan.sequence_parallel = GENERATE(false, true);
  question.model = small_model(4);
  question.workload = {4, 1024, 0};
  question.lowering.fidelity = GENERATE(Fidelity::Folded, Fidelity::Full);
  const Cluster cluster = build(dgx_spec(2));
  const auto sent_bytes = [&] {
    const Simulated run = simulate_plan(question, cluster, FlatCosts());
    double most = 0;
    for (const Task& task : run.step.graph.tasks)
      if (task.kind == TaskKind::Comm && task.comm == CommKind::Pipeline)
        most = std::max(most, task.rank_bytes);
    return most;
  };
  const double plain = sent_bytes();
  question.lowering.scatter_transfers = true;
  const double whole = 2.0 * 1024 * 1024;  // a micro-batch of 1,024 tokens in 16 bits
  CHECK(plain == Approx(question.plan.sequence_parallel ? whole / 8 : whole));
  CHECK(sent_bytes() == Approx(whole / 8));
}

TEST_CASE("a host is kept back by transfers in line, and by none beside computation") {
  Question question;
  question.plan.pp = 2;
  question.plan.dp = 1;
  question.plan.overlap.pipeline = GENERATE(false, true);
  question.model = small_model(4);
  question.workload = {4, 1024, 0};
  const Cluster cluster = build(dgx_spec(1));
  const FlatCosts costs(1e-3);  // launches that bound the step
  const double ahead_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
  question.lowering.transfers_stop_host = true;
  const Simulated kept = simulate_plan(question, cluster, costs);
  int waits = 0;
  for (const Task& task : kept.step.graph.tasks) waits += task.host_waits ? 1 : 0;
  if (question.plan.overlap.pipeline) {
    CHECK(waits == 0);
    CHECK(kept.metrics.step_time_s == Approx(ahead_s).epsilon(1e-12));
  } else {
    // Of F0 F1 B0 F2 B1 F3 B2 B3 on the first stage all but F0, F2 and F3 come after a transfer;
    // on the last each forward does.
    CHECK(waits == 5 + 4);
    CHECK(kept.metrics.step_time_s > ahead_s);
  }
}

TEST_CASE("a gradient all-reduce puts 2(n-1)/n of its bytes on every network port") {
  const int nodes = GENERATE(2, 4, 8);
  CAPTURE(nodes);
  Question question;
  question.plan.tp = 8;
  question.plan.dp = nodes;
  question.plan.overlap.gradients = false;
  question.model = small_model(4);
  question.workload = {nodes, 1024, 0};
  question.lowering.fidelity = GENERATE(Fidelity::Folded, Fidelity::Full);
  const Cluster cluster = build(dgx_spec(nodes));
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  const double payload = run.of(Rank{0}).bytes[static_cast<std::size_t>(CommKind::Data)];
  CHECK(payload > 0);
  for (const LinkMetrics& link : run.metrics.links) {
    const LinkId id = run.step.graph.links[static_cast<std::size_t>(link.link)].representative;
    const LinkKind kind = cluster.links()[static_cast<std::size_t>(id.value)].kind;
    if (kind != LinkKind::NicUp && kind != LinkKind::NicDown) continue;
    CHECK(link.bytes == Approx(2.0 * (nodes - 1) / nodes * payload).epsilon(1e-9));
  }
}

TEST_CASE("step by step and fluid ring collectives agree to 1 % on an idle network") {
  const int dp = GENERATE(2, 4, 8, 16);
  const int tp = GENERATE(8, 2);
  CAPTURE(dp, tp);
  Question question;
  question.plan.tp = tp;
  question.plan.dp = dp * 8 / tp;
  question.plan.overlap.gradients = false;
  question.model = small_model(4);
  question.workload = {question.plan.dp, 1024, 0};
  const Cluster cluster = build(dgx_spec(dp));
  const Simulated fluid = simulate_plan(question, cluster, FlatCosts());
  question.lowering.collectives = CollectiveDetail::Stepwise;
  const Simulated stepwise = simulate_plan(question, cluster, FlatCosts());
  CHECK(stepwise.metrics.step_time_s == Approx(fluid.metrics.step_time_s).epsilon(0.01));
}

TEST_CASE("an operator hides the collective beside it, slowed by the SMs that it holds") {
  const auto pair = [](double collective_s, double operator_s) {
    std::vector<ChunkItem> items(2);
    items[0].is_collective = items[0].beside_next = true;
    items[0].item.seconds = collective_s;
    items[0].item.label = 7;
    items[1].item.seconds = operator_s;
    hide_tensor_collectives(items, [](const ChunkItem&) { return 0.2; });
    return items;
  };
  const auto covered = pair(1, 2);  // 0.8 of the operator is done when the collective ends
  CHECK(covered[0].item.seconds == 0);
  CHECK(covered[1].item.seconds == Approx(2.2));
  CHECK(covered[1].item.hides_s == 1);
  CHECK(covered[1].item.hidden_label == 7);
  const auto longer = pair(3, 2);  // the operator takes 2 / 0.8
  CHECK(longer[0].item.seconds == Approx(0.5));
  CHECK(longer[1].item.seconds == Approx(2.5));
  CHECK(longer[0].hidden_s == Approx(2.5));
}

TEST_CASE("a gather in pieces hides all but its first piece behind its product") {
  std::vector<ChunkItem> items(3);
  items[0].is_collective = items[2].is_collective = true;
  items[0].collective = CollectiveKind::AllGather;
  items[2].collective = CollectiveKind::ReduceScatter;
  items[0].item.seconds = items[2].item.seconds = 1;
  items[1].is_product = true;
  items[1].item.seconds = 4;
  const auto share = [](const ChunkItem&) { return 0.2; };
  auto long_product = items;
  hide_tensor_pieces(long_product, 4, share);
  CHECK(long_product[0].item.seconds == Approx(0.25));
  CHECK(long_product[2].item.seconds == Approx(0.25));
  CHECK(long_product[1].item.seconds == Approx(4 + 2 * 0.2 * 0.75));
  CHECK(long_product[1].item.hides_s == Approx(1.5));
  items[1].item.seconds = 0.4;  // has room for half a second
  hide_tensor_pieces(items, 4, share);
  CHECK(items[0].item.seconds == Approx(0.5));
  CHECK(items[2].item.seconds >= 0.85);
  items[0].collective = CollectiveKind::AllReduce;
  items[0].item.seconds = 1;
  hide_tensor_pieces(items, 4, share);
  CHECK(items[0].item.seconds == 1);
}

TEST_CASE("tensor collectives beside products are hidden communication, none of it lost") {
  Question question;
  question.plan.tp = 8;
  question.plan.sequence_parallel = GENERATE(false, true);
  question.model = small_model(4);
  question.workload = {2, 1024, 0};
  const Cluster cluster = build(dgx_spec(1));
  const auto tensor = static_cast<std::size_t>(CommKind::Tensor);
  question.plan.overlap.tensor = false;
  const DeviceMetrics apart = simulate_plan(question, cluster, FlatCosts()).of(Rank{0});
  question.plan.overlap.tensor = true;
  const DeviceMetrics beside = simulate_plan(question, cluster, FlatCosts()).of(Rank{0});
  CHECK(apart.hidden_s[tensor] == 0);
  CHECK(beside.hidden_s[tensor] > 0.1 * apart.exposed_s[tensor]);
  CHECK(beside.hidden_s[tensor] + beside.exposed_s[tensor] == Approx(apart.exposed_s[tensor]));
  CHECK(beside.bytes[tensor] == apart.bytes[tensor]);
  CHECK(beside.busy_s() > apart.busy_s());
}

TEST_CASE("pieces beside their own product alone hide less than other operators do as well") {
  Question question;
  question.plan.tp = 8;
  question.plan.sequence_parallel = true;
  question.model = small_model(4);
  question.workload = {2, 1024, 0};
  const Cluster cluster = build(dgx_spec(1));
  const auto tensor = static_cast<std::size_t>(CommKind::Tensor);
  const auto hidden_s = [&](bool beside, bool pieces) {
    question.plan.overlap.tensor = beside;
    question.plan.overlap.tensor_pieces = pieces;
    return simulate_plan(question, cluster, FlatCosts()).of(Rank{0}).hidden_s[tensor];
  };
  CHECK(hidden_s(false, false) == 0);
  CHECK(hidden_s(false, true) > 0);
  CHECK(hidden_s(true, true) >= hidden_s(false, true));
}

TEST_CASE("a slow node unfolds its replica and no other") {
  Question question;
  question.plan.tp = 8;
  question.plan.dp = 4;
  question.model = small_model(4);
  question.workload = {8, 1024, 0};
  ClusterSpec spec = dgx_spec(3);
  spec.groups.push_back({spec.groups.front().node, 1, 0.8});
  const Simulated run = simulate_plan(question, build(spec), FlatCosts());
  CHECK(run.step.graph.devices.size() == 2);
  CHECK(run.of(Rank{24}).busy_s() > run.of(Rank{0}).busy_s());
  CHECK(run.of(Rank{0}).waiting_s > 0);
}

TEST_CASE("ZeRO moves the bytes of its formulas") {
  // With Ψ parameters a rank, N data ranks and m micro-batches: ZeRO-1 reduce-scatters the
  // gradients and gathers the weights once a step; ZeRO-2 reduces after every micro-batch; ZeRO-3
  // gathers the weights for every forward and backward instead (Rajbhandari et al. 2020, §7),
  // less what is still there: the head, whose backward follows its forward, and the embedding,
  // whose next forward follows its backward.
  const int zero = GENERATE(1, 2, 3);
  const int m = GENERATE(1, 3);
  CAPTURE(zero, m);
  Question question;
  question.plan.dp = 8;
  question.plan.zero = zero;
  question.model = small_model(4);
  question.model.tied_embeddings = false;
  question.workload = {8 * m, 1024, 0};
  question.lowering.fidelity = GENERATE(Fidelity::Folded, Fidelity::Full);
  const Cluster cluster = build(dgx_spec(1));
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  const LayerShape shape = layer_shape(question.model, question.plan, 1024);
  const double head = head_parameters_per_rank(shape, true);
  const double embedding = embedding_parameters_per_rank(shape);
  const double all = 4 * layer_parameters_per_rank(shape) + embedding + head;
  const DeviceMetrics& rank = run.of(Rank{3});
  const int reductions = zero == 1 ? 1 : m;
  CHECK(rank.bytes[static_cast<std::size_t>(CommKind::Data)] ==
        Approx(4 * all * reductions).epsilon(1e-12));
  const double gathered = zero < 3 ? all : m * (2 * all - head) - (m - 1) * embedding;
  CHECK(rank.bytes[static_cast<std::size_t>(CommKind::Parameter)] ==
        Approx(2 * gathered / 8).epsilon(1e-12));
}

TEST_CASE("hybrid shards reduce inside, then what is left between replicas") {
  Question question;
  question.plan.dp = 16;
  question.plan.zero = 3;
  question.plan.shard = 8;
  question.model = small_model(4);
  question.model.tied_embeddings = false;
  question.workload = {16, 1024, 0};
  question.lowering.fidelity = GENERATE(Fidelity::Folded, Fidelity::Full);
  const Simulated run = simulate_plan(question, build(dgx_spec(2)), FlatCosts());
  const LayerShape shape = layer_shape(question.model, question.plan, 1024);
  const double all = 4 * layer_parameters_per_rank(shape) + embedding_parameters_per_rank(shape) +
                     head_parameters_per_rank(shape, true);
  CHECK(run.of(Rank{5}).bytes[static_cast<std::size_t>(CommKind::Data)] ==
        Approx(4 * all * (1 + 1.0 / 8)).epsilon(1e-12));
}
