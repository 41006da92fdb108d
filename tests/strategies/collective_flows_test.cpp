// Collectives across nodes take the time of their formulas on an idle network.
#include "strategies/collective_flows.h"

#include "sim/simulate.h"
#include "strategies/edge_traffic.h"
#include "strategies/fluid_time.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr double kBytes = 1e9;
constexpr double kNicBytesPerS = 50e9 * 0.96;  // what 400 Gbit/s deliver

std::vector<GpuId> all_gpus(const Cluster& cluster) {
  std::vector<GpuId> gpus;
  for (int g = 0; g < cluster.gpu_count(); ++g) gpus.push_back({g});
  return gpus;
}

/// The flows of one collective, simulated; folded or each flow for itself.
double simulated_seconds(const Cluster& cluster, const std::vector<PhysicalFlow>& flows,
                         bool fold) {
  StepGraph graph;
  graph.labels = {"collective"};
  graph.devices.push_back({});
  graph.group_devices = {0};
  graph.groups.push_back({0, 1});
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Data;
  task.payload = 0;
  task.bytes = kBytes;
  graph.tasks.push_back(task);
  const std::vector<PhysicalPattern> patterns{{flows}};
  FlowFolding(cluster, patterns, fold).write_to(graph);
  EdgeList().finish(graph);
  SimulationOptions options;
  options.steps = 1;
  return simulate(graph, options).end_s;
}

void check_flows(const Cluster& cluster, const std::vector<PhysicalFlow>& flows, double expected) {
  CHECK(simulated_seconds(cluster, flows, true) == Approx(expected).epsilon(1e-9));
  CHECK(simulated_seconds(cluster, flows, false) == Approx(expected).epsilon(1e-9));
  CHECK(kBytes * fluid_seconds_per_byte(cluster, flows) == Approx(expected).epsilon(1e-9));
}

void check_seconds(const Cluster& cluster, CollectiveKind kind, CollectiveAlgorithm algorithm,
                   double expected) {
  check_flows(cluster, collective_flows(cluster, all_gpus(cluster), kind, algorithm), expected);
}

}  // namespace

TEST_CASE("rings over nodes of eight ranks move (n-1)/n of the data over each node's eight NICs") {
  const int nodes = GENERATE(2, 4, 16);
  const Cluster cluster = build(dgx_spec(nodes));
  const double n = cluster.gpu_count();
  const double once = (n - 1) / n * kBytes / (8 * kNicBytesPerS);
  check_seconds(cluster, CollectiveKind::AllReduce, CollectiveAlgorithm::Ring, 2 * once);
  check_seconds(cluster, CollectiveKind::AllGather, CollectiveAlgorithm::Ring, once);
  check_seconds(cluster, CollectiveKind::ReduceScatter, CollectiveAlgorithm::Ring, once);
}

TEST_CASE("two trees keep the busiest node's NICs busy for all that it sends") {
  const int nodes = GENERATE(2, 3, 4, 8, 16);
  CAPTURE(nodes);
  const Cluster cluster = build(dgx_spec(nodes));
  const EdgeTraffic traffic = edge_traffic(CollectiveKind::AllReduce, CollectiveAlgorithm::Tree,
                                           communicator_shape(cluster, all_gpus(cluster)));
  // Inside a node the chain carries the data up and down: 2 · 7/8 of it over each NVLink, which
  // is the narrower part where a node sends only its own.
  const double chain = 2 * 7.0 / 8 * kBytes / (450e9 * payload_efficiency(LinkKind::NvlinkUp));
  const double network = traffic.node_sent * kBytes / (8 * kNicBytesPerS);
  check_seconds(cluster, CollectiveKind::AllReduce, CollectiveAlgorithm::Tree,
                std::max(chain, network));
}

TEST_CASE("all-to-all is bound by what each rank sends to other nodes") {
  const int nodes = GENERATE(2, 4);
  const Cluster cluster = build(dgx_spec(nodes));
  const double n = cluster.gpu_count();
  check_seconds(cluster, CollectiveKind::AllToAll, CollectiveAlgorithm::Direct,
                (n - 8) / n * kBytes / kNicBytesPerS);
}

TEST_CASE("NICs that are not fully duplex slow what goes both ways, and nothing else") {
  const int nodes = GENERATE(2, 4);
  ClusterSpec spec = dgx_spec(nodes, GENERATE(FabricKind::SingleSwitch, FabricKind::RailOptimized));
  constexpr double kDuplex = 0.75, kGoodput = 0.5, kOneWay = 50e9 * kGoodput;
  spec.groups[0].node.nic_goodput = kGoodput;
  spec.groups[0].node.nic_duplex = kDuplex;
  const Cluster cluster = build(spec);
  const double n = cluster.gpu_count(), each_way = kDuplex * kOneWay;
  check_seconds(cluster, CollectiveKind::AllReduce, CollectiveAlgorithm::Ring,
                2 * (n - 1) / n * kBytes / (8 * each_way));
  check_seconds(cluster, CollectiveKind::AllToAll, CollectiveAlgorithm::Direct,
                (n - 8) / n * kBytes / each_way);
  // One way alone, and two ways of different NICs, have the whole rate.
  check_flows(cluster, {{GpuId{0}, GpuId{8}, 1}}, kBytes / kOneWay);
  check_flows(cluster, {{GpuId{0}, GpuId{8}, 1}, {GpuId{9}, GpuId{1}, 1}}, kBytes / kOneWay);
  check_flows(cluster, {{GpuId{0}, GpuId{8}, 1}, {GpuId{8}, GpuId{0}, 1}}, kBytes / each_way);
  // Of 1.5 rates the smaller transfer ends first, then the other has its way for itself.
  check_flows(cluster, {{GpuId{0}, GpuId{8}, 1}, {GpuId{8}, GpuId{0}, .5}},
              .5 * kBytes / each_way + .5 * kBytes / kOneWay);
}
