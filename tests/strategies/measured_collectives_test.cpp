// Collectives inside a node take what a profile measured there.
#include <algorithm>

#include "kernels/collective_curve.h"
#include "strategies/collective_flows.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

/// FlatCosts of a node where all-reduces among two were measured: 10 µs up to 1 KB, then 1 GB/s.
class MeasuredCosts final : public FlatCosts {
 public:
  const std::vector<CollectiveCurve>& collectives() const override { return curves_; }

 private:
  std::vector<CollectiveCurve> curves_{{.collective = CollectiveKind::AllReduce,
                                        .ranks = 2,
                                        .source = "chosen",
                                        .points = {{1e3, 10e-6}, {1e6, 1009e-6}, {2e6, 2009e-6}}}};
};

double seconds_at(const std::vector<CollectiveCurve>& curves, double bytes) {
  const auto time = measured_collective(curves, CollectiveKind::AllReduce, 2, bytes);
  REQUIRE(time);
  return time->start_s + bytes * time->per_byte_s;
}

Question two_ranks() {
  Question question;
  question.model = small_model(4);
  question.plan.tp = 2;
  question.plan.dp = 1;
  question.workload.global_batch = 2;
  question.workload.seq_len = 1024;
  return question;
}

ClusterSpec one_node(bool nvlink) {
  ClusterSpec spec = dgx_spec(1);
  NodeSpec& node = spec.groups.front().node;
  node.gpus = 2;
  if (!nvlink) {
    node.nvswitch = false;
    node.gpu.nvlink_bandwidth_bytes_per_s = 0;
  }
  return spec;
}

}  // namespace

TEST_CASE("a curve is straight between its points and goes on along its ends") {
  const MeasuredCosts costs;
  CHECK(seconds_at(costs.collectives(), 10) == Approx(10e-6));
  CHECK(seconds_at(costs.collectives(), 1e3) == Approx(10e-6));
  CHECK(seconds_at(costs.collectives(), 500.5e3) == Approx(509.5e-6));
  CHECK(seconds_at(costs.collectives(), 1e6) == Approx(1009e-6));
  CHECK(seconds_at(costs.collectives(), 8e6) == Approx(8009e-6));
  CHECK(!measured_collective(costs.collectives(), CollectiveKind::AllReduce, 4, 1e6));
  CHECK(!measured_collective(costs.collectives(), CollectiveKind::AllGather, 2, 1e6));
}

TEST_CASE("a measured curve that falls with the size costs no bandwidth there") {
  const std::vector<CollectiveCurve> curves{
      {.collective = CollectiveKind::AllReduce, .points = {{1e3, 20e-6}, {2e3, 18e-6}}}};
  CHECK(seconds_at(curves, 1.5e3) == Approx(19e-6));
  CHECK(seconds_at(curves, 1e5) == Approx(18e-6));
}

TEST_CASE("a step's tensor collectives take what was measured among as many ranks") {
  const bool nvlink = GENERATE(true, false);
  CAPTURE(nvlink);
  const Cluster cluster = build(one_node(nvlink));
  const MeasuredCosts costs;
  const Simulated run = simulate_plan(two_ranks(), cluster, costs);
  // Of 4 layers and 2 micro-batches, two forward and two backward; 1024 tokens of 1024 in bf16.
  const double each_s = seconds_at(costs.collectives(), 1024.0 * 1024 * 2);
  const DeviceMetrics& metrics = run.of(Rank{0});
  const double exposed_s = metrics.exposed_s[static_cast<std::size_t>(CommKind::Tensor)];
  CHECK(exposed_s >= Approx(4 * 2 * 4 * each_s).epsilon(1e-9));
  // Embedding and head have one each of the same size, and the loss three of a number a token.
  CHECK(exposed_s < (4 * 2 * 4 + 2 * 2) * each_s * 1.01);
  const auto says = [](const std::string& line) {
    return line.find("measured: all_reduce among 2") != std::string::npos;
  };
  CHECK(std::count_if(run.step.assumptions.begin(), run.step.assumptions.end(), says) == 1);
}
