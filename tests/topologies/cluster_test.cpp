#include "topologies/cluster.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>

#include "tests/topologies/cluster_fixtures.h"

namespace rehearse {
namespace {

TEST_CASE("GPUs are numbered node by node over all groups") {
  ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 2, 4);
  NodeGroup slow;
  slow.node = *find_node("dgx-a100");
  slow.count = 3;
  slow.speed = 0.9;
  spec.groups.push_back(slow);
  const Cluster cluster = build_well(spec);
  CHECK(cluster.gpu_count() == 2 * 4 + 3 * 8);
  CHECK(cluster.node_count() == 5);
  CHECK(cluster.first_gpu(2) == GpuId{8});
  CHECK(cluster.gpus_in_node(0) == 4);
  CHECK(cluster.gpus_in_node(4) == 8);
  CHECK(cluster.node_of(GpuId{7}) == 1);
  CHECK(cluster.node_of(GpuId{8}) == 2);
  CHECK(cluster.gpu(GpuId{7}).id == "h100-sxm-80gb");
  CHECK(cluster.gpu(GpuId{8}).id == "a100-sxm-80gb");
  CHECK(cluster.speed(GpuId{0}) == 1);
  CHECK(cluster.speed(GpuId{31}) == 0.9);
  CHECK(cluster.node(3).id == "dgx-a100");
}

TEST_CASE("Inside a node a transfer crosses NVLink up and down") {
  const Cluster cluster = build_well(plain_cluster(FabricKind::SingleSwitch, 1));
  const Route route = cluster.route(GpuId{1}, GpuId{6});
  CHECK(kinds(cluster, route) == "nvlink-up nvlink-down");
  CHECK(bottleneck_bytes_per_s(cluster, route) == kNvlinkRate);
  CHECK(route.latency_s == Approx(0.94e-6));
}

TEST_CASE("Without NVSwitch GPUs share one slot for each other and for the network") {
  ClusterSpec spec;
  NodeGroup group;
  group.node = *find_node("pcie-8");
  group.count = 2;
  spec.groups.push_back(group);
  const Cluster cluster = build_well(spec);
  CHECK(kinds(cluster, cluster.route(GpuId{0}, GpuId{1})) == "pcie-up pcie-down");
  CHECK(kinds(cluster, cluster.route(GpuId{0}, GpuId{15})) == "pcie-up nic-up nic-down pcie-down");
}

TEST_CASE("A GPU uses the NIC at its share of the list") {
  SECTION("two GPUs a NIC") {
    ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 2);
    spec.groups[0].node.nics = 4;
    const Cluster cluster = build_well(spec);
    const auto nic = [&](int gpu) { return cluster.route(GpuId{gpu}, GpuId{8}).links[0]; };
    CHECK(nic(0) == nic(1));
    CHECK(nic(1) != nic(2));
    CHECK(nic(6) == nic(7));
  }
  SECTION("four NICs a GPU are one link of their total rate") {
    ClusterSpec spec;
    NodeGroup group;
    group.node = *find_node("aws-p5");
    group.count = 2;
    spec.groups.push_back(group);
    const Cluster cluster = build_well(spec);
    CHECK(bottleneck_bytes_per_s(cluster, cluster.route(GpuId{0}, GpuId{8})) ==
          Approx(4 * 100e9 / 8));
  }
  SECTION("a NIC is no faster than the slots of its GPUs") {
    ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 2);
    spec.groups[0].node.nic_bandwidth_bytes_per_s = 100e9;
    const Cluster cluster = build_well(spec);
    CHECK(bottleneck_bytes_per_s(cluster, cluster.route(GpuId{0}, GpuId{8})) == 64e9);
  }
}

TEST_CASE("NICs that are not fully duplex share a capacity between their ways") {
  ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 2);
  const Cluster full = build_well(spec);
  spec.groups[0].node.nic_duplex = 0.75;
  const Cluster cluster = build_well(spec);
  const Route out = cluster.route(GpuId{0}, GpuId{8}), back = cluster.route(GpuId{8}, GpuId{0});
  CHECK(kinds(cluster, out) == "nic-both-ways nic-up nic-down nic-both-ways");
  CHECK(out.links[0] == back.links[3]);
  CHECK(out.links[3] == back.links[0]);
  const auto rate = [&](LinkId link) {
    return cluster.links()[static_cast<std::size_t>(link.value)].bandwidth_bytes_per_s;
  };
  CHECK(rate(out.links[0]) == Approx(1.5 * kNicRate));
  CHECK(rate(out.links[1]) == Approx(kNicRate));
  CHECK(out.latency_s == full.route(GpuId{0}, GpuId{8}).latency_s);
  CHECK(full.links().size() + 16 == cluster.links().size());
  CHECK(analyse(cluster).bisection_bytes_per_s == analyse(full).bisection_bytes_per_s);
}

TEST_CASE("The latency of a route is both NICs and every switch") {
  ClusterSpec spec = plain_cluster(FabricKind::RailOptimized, 64);
  spec.fabric.hop_latency_s = 0.5e-6;
  const double nic = spec.groups[0].node.nic_latency_s;
  const Cluster cluster = build_well(spec);
  // 32 nodes share a leaf; the others are behind leaf, spine, leaf.
  CHECK(cluster.route(GpuId{0}, GpuId{8}).latency_s == Approx(2 * nic + 0.5e-6));
  CHECK(cluster.route(GpuId{0}, GpuId{8 * 63}).latency_s == Approx(2 * nic + 1.5e-6));
}

TEST_CASE("Links name themselves") {
  const Cluster cluster = build_well(plain_cluster(FabricKind::RailOptimized, 64));
  const Route route = cluster.route(GpuId{3}, GpuId{8 * 63 + 3});
  const auto name = [&](int hop) {
    return cluster.links()[static_cast<std::size_t>(route.links[hop].value)].name();
  };
  CHECK(name(0) == "nic-up 3");
  CHECK(name(1) == "leaf-up 3.0");
  CHECK(name(2) == "leaf-down 11.0");
  CHECK(name(3) == "nic-down 507");
  std::set<std::string> names;
  for (const Link& link : cluster.links()) CHECK(names.insert(link.name()).second);
}

TEST_CASE("A cluster of 16,384 GPUs is built in milliseconds and routed in nanoseconds") {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  for (const auto spreading : {Spreading::Adaptive, Spreading::Ecmp}) {
    ClusterSpec spec = plain_cluster(FabricKind::RailOptimized, 2048);
    spec.fabric.spreading = spreading;
    const auto begin = Clock::now();
    const Cluster cluster = build_well(spec);
    const double build_s = seconds_since(begin);
    CHECK(cluster.gpu_count() == 16384);

    const int batches = 5, routes = 40000;
    std::int64_t hops = 0;
    double route_s = 1;  // of the fastest batch: the machine may be busy with others
    for (int batch = 0; batch < batches; ++batch) {
      const auto routing = Clock::now();
      for (int i = 0; i < routes; ++i)
        hops += cluster.route(GpuId{i % 16384}, GpuId{(i + 1 + i * 7919 % 16000) % 16384}).count;
      route_s = std::min(route_s, seconds_since(routing) / routes);
    }
    std::printf("16,384 GPUs: %zu links built in %.1f ms, %.0f ns a route of %.1f links\n",
                cluster.links().size(), build_s * 1e3, route_s * 1e9,
                static_cast<double>(hops) / routes / batches);
    // Ten times what an idle machine needs, for busy ones and sanitizers.
    CHECK(build_s < 1.5);
    CHECK(route_s < 10e-6);
  }
}

}  // namespace
}  // namespace rehearse
