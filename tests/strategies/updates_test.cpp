#include "sim/update_rate.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr double kPayload_bytes_per_s = 0.96 * 50e9;  // of a NIC of 400 Gbit/s

/// Nodes of one GPU and one NIC, whose hosts are never the bottleneck.
ClusterSpec single_gpus(int nodes) {
  ClusterSpec spec = dgx_spec(nodes);
  spec.groups[0].node.gpus = spec.groups[0].node.nics = 1;
  spec.groups[0].node.host_memory_bandwidth_bytes_per_s = 1e16;
  return spec;
}

/// A second kind of node, `speed` times as fast.
ClusterSpec two_speeds(double speed) {
  ClusterSpec spec = single_gpus(2);
  NodeGroup slower = spec.groups[0];
  slower.speed = speed;
  spec.groups.push_back(slower);
  return spec;
}

Question served(int replicas, int servers, Synchrony synchrony = Synchrony::Synchronous) {
  Question question;
  question.model = small_model(8);
  question.workload.global_batch = replicas;
  question.workload.seq_len = 1024;
  question.plan.dp = replicas;
  question.plan.overlap.gradients = false;
  question.plan.bucket_bytes = 1e12;  // one message
  question.plan.updates.aggregation = Aggregation::ParameterServer;
  question.plan.updates.servers = servers;
  question.plan.updates.synchrony = synchrony;
  return question;
}

double parameters_of(const Question& question) {
  return static_cast<double>(
      count_parameters(question.model, padded_vocab(question.model, 1)).total());
}

double exposed(const Simulated& run, int rank, CommKind kind) {
  return run.of(Rank{rank}).exposed_s[static_cast<std::size_t>(kind)];
}

/// What transfers of a kind took, beside computation (clearing gradients) or not.
double spent(const Simulated& run, int rank, CommKind kind) {
  return exposed(run, rank, kind) + run.of(Rank{rank}).hidden_s[static_cast<std::size_t>(kind)];
}

UpdateRate rate_of(Question question, const Cluster& cluster, int steps) {
  question.simulation.steps = steps;
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  return update_rate(run.step.graph, run.record);
}

}  // namespace

TEST_CASE("one parameter server takes in and gives out what its NIC can") {
  for (const int replicas : {2, 4, 8}) {
    CAPTURE(replicas);
    const Question question = served(replicas, 1);
    const Simulated run = simulate_plan(question, build(single_gpus(replicas)), FlatCosts());
    const double parameters = parameters_of(question);
    // One replica shares the server's host; the others come through its NIC.
    CHECK(spent(run, 1, CommKind::Data) ==
          Approx((replicas - 1) * 4 * parameters / kPayload_bytes_per_s).epsilon(1e-2));
    CHECK(spent(run, 1, CommKind::Parameter) ==
          Approx((replicas - 1) * 2 * parameters / kPayload_bytes_per_s).epsilon(1e-2));
    CHECK(run.of(Rank{1}).bytes[static_cast<std::size_t>(CommKind::Data)] ==
          Approx(4 * parameters).epsilon(1e-12));
  }
}

TEST_CASE("as many servers as replicas move what a ring does") {
  const int n = 8;
  Question question = served(n, n);
  question.plan.gradient_precision = Precision::Bf16;
  const Cluster cluster = build(single_gpus(n));
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  const double ring_s = 2.0 * (n - 1) / n * 2 * parameters_of(question) / kPayload_bytes_per_s;
  CHECK(spent(run, 3, CommKind::Data) + spent(run, 3, CommKind::Parameter) ==
        Approx(ring_s).epsilon(1e-2));
  // Fewer servers are a narrower way: (n − 1)/s times the bytes through each.
  question.plan.updates.servers = 2;
  const Simulated two = simulate_plan(question, cluster, FlatCosts());
  CHECK(
      spent(two, 3, CommKind::Data) + spent(two, 3, CommKind::Parameter) ==
      Approx(2.0 * (n - 1) / 2 * 2 * parameters_of(question) / kPayload_bytes_per_s).epsilon(1e-2));
}

TEST_CASE("a server whose memory is slow takes the time to add up and update") {
  const Question question = served(4, 1);
  ClusterSpec spec = single_gpus(4);
  spec.groups[0].node.host_memory_bandwidth_bytes_per_s = 10e9 / 0.8;
  const Simulated run = simulate_plan(question, build(spec), FlatCosts());
  // Three moves of each fp32 gradient of four replicas, and Adam's 4 + 24 + 2 bytes.
  const double work_s = parameters_of(question) * (4 * 3 * 4 + 30) / 10e9;
  const double others_s = run.metrics.step_time_s - run.of(Rank{1}).busy_s();
  CHECK(others_s >= work_s);
  CHECK(others_s <= work_s + parameters_of(question) * 6 * 3 / kPayload_bytes_per_s + 1e-3);
}

TEST_CASE("asynchronous replicas never update less often than synchronous ones") {
  for (const double speed : {1.0, 0.5, 0.1}) {
    CAPTURE(speed);
    const Cluster cluster = build(two_speeds(speed));
    const double step_s = simulate_plan(served(4, 4), cluster, FlatCosts()).metrics.step_time_s;
    const UpdateRate rate = rate_of(served(4, 4, Synchrony::Asynchronous), cluster, 8);
    CHECK(rate.updates_per_s >= 4 / step_s * (1 - 1e-6));
    // Every update finds those of the other three between, on average.
    CHECK(rate.mean_staleness == Approx(3).epsilon(1e-9));
    CHECK(rate.replica_period_s[3] >= rate.replica_period_s[0] * (1 - 1e-9));
  }
}

TEST_CASE("nobody waits for a slow replica when nothing is synchronous") {
  Question question = served(4, 4, Synchrony::Asynchronous);
  question.workload.global_batch = 64;  // computing takes far longer than updates
  const Cluster cluster = build(two_speeds(0.25));
  const UpdateRate rate = rate_of(question, cluster, 10);
  CHECK(rate.replica_period_s[2] / rate.replica_period_s[0] == Approx(4).epsilon(0.15));
}

TEST_CASE("bounded staleness holds fast replicas to the pace of the slowest") {
  Question question = served(4, 4, Synchrony::BoundedStale);
  question.workload.global_batch = 64;
  question.plan.updates.staleness = 2;
  const int steps = 20;
  question.simulation.steps = steps;
  const Cluster cluster = build(two_speeds(0.5));
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  const std::size_t devices = run.step.graph.devices.size();
  REQUIRE(devices == 4);
  const auto end_s = [&](int step, std::size_t replica) {
    return run.record.step_finish_s[static_cast<std::size_t>(step) * devices + replica];
  };
  for (int step = 3; step < steps; ++step) CHECK(end_s(step, 0) >= end_s(step - 3, 3));
  CHECK(end_s(2, 0) < end_s(1, 3));  // but up to there they run ahead
  const double fast_s = (end_s(15, 0) - end_s(10, 0)) / 5,
               slow_s = (end_s(15, 3) - end_s(10, 3)) / 5;
  CHECK(fast_s == Approx(slow_s).epsilon(1e-6));
  const UpdateRate free = rate_of(served(4, 4, Synchrony::Asynchronous), cluster, 8);
  CHECK(free.updates_per_s > 0);
}

TEST_CASE("metrics at each replica's own pace still add up to the step") {
  Question question = served(4, 2, Synchrony::Asynchronous);
  question.simulation.steps = 8;
  Simulated run = simulate_plan(question, build(two_speeds(0.5)), FlatCosts());
  const UpdateRate rate = update_rate(run.step.graph, run.record);
  restate_for_rate(run.step.graph, rate, run.metrics);
  CHECK(run.metrics.step_time_s == Approx(4 / rate.updates_per_s).epsilon(1e-12));
  for (const DeviceMetrics& device : run.metrics.devices) {
    double sum_s = device.busy_s() + device.bubble_s + device.waiting_s + device.host_s;
    for (const double seconds : device.exposed_s) sum_s += seconds;
    CHECK(sum_s == Approx(run.metrics.step_time_s).epsilon(1e-9));
    CHECK(device.waiting_s >= -1e-12);
  }
}

TEST_CASE("replicas that train alone between averages reduce no gradients") {
  Question question = served(4, 1);
  question.plan.updates.aggregation = Aggregation::LocalSgd;
  question.plan.updates.period = 8;
  const Cluster cluster = build(single_gpus(4));
  const Simulated average = simulate_plan(question, cluster, FlatCosts());
  question.lowering.local_step = true;
  const Simulated alone = simulate_plan(question, cluster, FlatCosts());
  CHECK(exposed(alone, 0, CommKind::Data) == 0);
  CHECK(exposed(alone, 0, CommKind::Parameter) == 0);
  CHECK(average.of(Rank{0}).bytes[static_cast<std::size_t>(CommKind::Parameter)] ==
        Approx(4 * parameters_of(question)).epsilon(1e-12));
  CHECK(exposed(average, 0, CommKind::Parameter) >=
        2.0 * 3 / 4 * 4 * parameters_of(question) / kPayload_bytes_per_s);
  CHECK(alone.metrics.links.size() == average.metrics.links.size());
}
