#include <set>

#include "tests/topologies/cluster_fixtures.h"
#include "topologies/cluster.h"

namespace rehearse {
namespace {

double bisection(const ClusterSpec& spec) {
  return analyse(build_well(spec)).bisection_bytes_per_s;
}

ClusterSpec torus(std::vector<int> dimensions, int gpus = 1) {
  int nodes = 1;
  for (const int length : dimensions) nodes *= length;
  ClusterSpec spec = plain_cluster(FabricKind::Torus, nodes, gpus);
  spec.fabric.torus_dimensions = std::move(dimensions);
  return spec;
}

TEST_CASE("A non-blocking fabric's bisection is half of all NICs") {
  const auto spreading = GENERATE(Spreading::Adaptive, Spreading::Ecmp);
  const auto kind = GENERATE(FabricKind::SingleSwitch, FabricKind::LeafSpine, FabricKind::FatTree,
                             FabricKind::RailOptimized);
  const int nodes = GENERATE(2, 16, 128);
  CAPTURE(static_cast<int>(kind), nodes);
  ClusterSpec spec = plain_cluster(kind, nodes);
  spec.fabric.spreading = spreading;
  const ClusterAnalysis analysis = analyse(build_well(spec));
  CHECK(analysis.bisection_bytes_per_s == Approx(nodes / 2 * 8 * kNicRate));
  CHECK(analysis.full_bisection_bytes_per_s == Approx(nodes / 2 * 8 * kNicRate));
  CHECK(analysis.oversubscription == Approx(1));
  CHECK(analysis.components == 1);
  CHECK(analysis.disconnected.empty());
}

TEST_CASE("Oversubscription divides the bisection of every leaf fabric") {
  const auto kind = GENERATE(FabricKind::LeafSpine, FabricKind::FatTree, FabricKind::RailOptimized);
  const double oversubscription = GENERATE(2.0, 3.0, 4.0);
  const auto spreading = GENERATE(Spreading::Adaptive, Spreading::Ecmp);
  ClusterSpec spec = plain_cluster(kind, 256);
  spec.fabric.switch_ports = 128;
  spec.fabric.oversubscription = oversubscription;
  spec.fabric.spreading = spreading;
  if (kind == FabricKind::RailOptimized) spec.fabric.nodes_per_rail_group = 64;
  CAPTURE(static_cast<int>(kind), oversubscription);
  const ClusterAnalysis analysis = analyse(build_well(spec));
  // Leaves hold whole nodes, so the half-way cut may pass through one leaf's nodes, whose traffic
  // does not climb: the bisection is at least the quotient, and exactly it where leaves do not
  // straddle the middle.
  const double quotient = 128 * 8 * kNicRate / oversubscription;
  const int nodes_a_leaf = static_cast<int>(128 * oversubscription / (1 + oversubscription)) / 8;
  if (kind == FabricKind::RailOptimized || 128 % nodes_a_leaf == 0)
    CHECK(analysis.bisection_bytes_per_s == Approx(quotient).epsilon(1e-9));
  CHECK(analysis.bisection_bytes_per_s >= quotient * (1 - 1e-9));
  CHECK(analysis.bisection_bytes_per_s <= quotient + nodes_a_leaf * 8 * kNicRate);
}

TEST_CASE("A fabric has no more levels than it needs") {
  const auto hops = [](int nodes, int ports) {
    ClusterSpec spec = plain_cluster(FabricKind::FatTree, nodes, 1);
    spec.fabric.switch_ports = ports;
    return analyse(build_well(spec)).diameter_hops;
  };
  CHECK(hops(4, 4) == 2);   // one leaf
  CHECK(hops(8, 4) == 4);   // four leaves of two under two spines
  CHECK(hops(16, 4) == 6);  // the k-ary fat tree: k³/4 hosts
  CHECK(hops(1024, 16) == 6);
}

TEST_CASE("A full three-level fat tree has the switches of the k-ary fat tree") {
  ClusterSpec spec = plain_cluster(FabricKind::FatTree, 16, 1);
  spec.fabric.switch_ports = 4;
  spec.fabric.spreading = Spreading::Ecmp;
  const ClusterAnalysis analysis = analyse(build_well(spec));
  // k = 4: k²/2 = 8 leaves, as many spines, k²/4 = 4 cores; beside 16 GPUs, NVSwitches and NICs.
  CHECK(analysis.vertices == 3 * 16 + 8 + 8 + 4);
  // 16 cables between each two tiers of switches, GPU-NVSwitch, GPU-NIC and NIC-leaf, both ways.
  CHECK(analysis.edges == 2 * (16 * 3 + 16 + 16));
  CHECK(analysis.bisection_bytes_per_s == Approx(8 * kNicRate));
}

TEST_CASE("Rails meet on their leaf, and different rails across the spine") {
  const Cluster cluster = build_well(plain_cluster(FabricKind::RailOptimized, 64));
  CHECK(kinds(cluster, cluster.route(GpuId{2}, GpuId{8 * 5 + 2})) == "nic-up nic-down");
  CHECK(kinds(cluster, cluster.route(GpuId{2}, GpuId{8 * 5 + 3})) ==
        "nic-up leaf-up leaf-down nic-down");
  CHECK(kinds(cluster, cluster.route(GpuId{2}, GpuId{8 * 40 + 2})) ==
        "nic-up leaf-up leaf-down nic-down");
  const Cluster plain = build_well(plain_cluster(FabricKind::LeafSpine, 64));
  CHECK(kinds(plain, plain.route(GpuId{2}, GpuId{8 * 3 + 3})) == "nic-up nic-down");
  CHECK(kinds(plain, plain.route(GpuId{2}, GpuId{8 * 4 + 2})) ==
        "nic-up leaf-up leaf-down nic-down");
}

TEST_CASE("ECMP keeps a pair on one path and spreads pairs over all of them") {
  ClusterSpec spec = plain_cluster(FabricKind::RailOptimized, 64);
  spec.fabric.spreading = Spreading::Ecmp;
  const Cluster cluster = build_well(spec);
  std::set<LinkId> used;
  for (int from = 0; from < 32; ++from)
    for (int to = 32; to < 64; ++to) {
      const Route route = cluster.route(GpuId{8 * from}, GpuId{8 * to});
      CHECK(route.links[1] == cluster.route(GpuId{8 * from}, GpuId{8 * to}).links[1]);
      used.insert(route.links[1]);
    }
  CHECK(used.size() == 32);  // all uplinks of the leaf, each at the NIC's rate
  CHECK(cluster.links()[static_cast<std::size_t>(used.begin()->value)].bandwidth_bytes_per_s ==
        Approx(kNicRate));
}

TEST_CASE("A torus' bisection is two cables a ring across the last dimension") {
  // k^d nodes of one NIC B: a cable has B/(2d); 2·k^(d−1) cables cross the middle.
  CHECK(bisection(torus({8})) == Approx(2 * kNicRate / 2));
  CHECK(bisection(torus({4, 4})) == Approx(2 * 4 * kNicRate / 4));
  CHECK(bisection(torus({4, 4, 4})) == Approx(2 * 16 * kNicRate / 6));
  CHECK(bisection(torus({6, 6, 6}, 8)) == Approx(2 * 36 * 8 * kNicRate / 6));
  // In a dimension of two the two cables are one link of twice the rate.
  CHECK(bisection(torus({4, 2})) == Approx(2 * 4 * kNicRate / 4));
}

TEST_CASE("A torus' diameter is half of every dimension") {
  const auto hops = [](std::vector<int> dimensions) {
    return analyse(build_well(torus(std::move(dimensions)))).diameter_hops - 2;  // NICs
  };
  CHECK(hops({8}) == 4);
  CHECK(hops({9}) == 4);
  CHECK(hops({4, 6}) == 2 + 3);
  CHECK(hops({4, 4, 4}) == 6);
  CHECK(hops({2, 3, 5}) == 1 + 1 + 2);
}

TEST_CASE("Half-way round a ring, both directions are used") {
  const Cluster cluster = build_well(torus({8}));
  std::set<LinkId> used;
  for (int node = 0; node < 8; ++node) {
    const Route route = cluster.route(GpuId{node}, GpuId{(node + 4) % 8});
    CHECK(route.count == 2 + 4);
    used.insert(route.links + 1, route.links + 5);
  }
  CHECK(used.size() == 16);
}

TEST_CASE("A dragonfly's routes are minimal") {
  ClusterSpec spec = plain_cluster(FabricKind::Dragonfly, 72, 1);
  spec.fabric.switch_ports = 7;  // p = 2, a = 4, h = 2: at most 9 groups, 72 hosts
  const Cluster cluster = build_well(spec);
  const ClusterAnalysis analysis = analyse(cluster);
  CHECK(analysis.diameter_hops == 2 + 3);
  // 36 switches with 3 local and 2 global cables, 72 hosts with NIC, NVSwitch and slot.
  CHECK(analysis.vertices == 3 * 72 + 36);
  CHECK(analysis.edges == 36 * (3 + 2) + 72 * 6);
  CHECK(kinds(cluster, cluster.route(GpuId{0}, GpuId{1})) == "nic-up nic-down");
  CHECK(kinds(cluster, cluster.route(GpuId{0}, GpuId{2})) == "nic-up group nic-down");
  int longest = 0;
  for (int to = 8; to < 72; ++to) {
    const Route route = cluster.route(GpuId{0}, GpuId{to});
    CHECK(kinds(cluster, route).find("global") != std::string::npos);
    longest = std::max(longest, route.count);
  }
  CHECK(longest == 5);
}

TEST_CASE("Between two dragonfly groups run all their global cables") {
  // p = h = 2, a = 4; 16 hosts fill two groups, joined by 4·2 cables.
  ClusterSpec spec = plain_cluster(FabricKind::Dragonfly, 16, 1);
  spec.fabric.switch_ports = 7;
  CHECK(bisection(spec) == Approx(8 * kNicRate));
}

TEST_CASE("Adaptive spreading makes the cables between two dragonfly switches one link") {
  ClusterSpec spec = plain_cluster(FabricKind::Dragonfly, 16, 1);
  spec.fabric.switch_ports = 7;
  const auto global_links = [&](Spreading spreading) {
    spec.fabric.spreading = spreading;
    const Cluster cluster = build_well(spec);
    std::vector<double> rates;
    for (const Link& link : cluster.links())
      if (link.kind == LinkKind::Global) rates.push_back(link.bandwidth_bytes_per_s);
    return rates;
  };
  // Switch i of one group has both its global cables to switch i of the other.
  CHECK(global_links(Spreading::Adaptive) == std::vector<double>(2 * 4, 2 * kNicRate));
  CHECK(global_links(Spreading::Ecmp) == std::vector<double>(2 * 8, kNicRate));
}

TEST_CASE("The NICs of one GPU are spread together, and its transfers keep their total rate") {
  ClusterSpec spec;
  NodeGroup group;
  group.node = *find_node("aws-p5");
  group.count = 64;
  spec.groups.push_back(group);
  spec.fabric.switch_ports = 128;
  spec.fabric.spreading = Spreading::Ecmp;
  for (const auto kind : {FabricKind::FatTree, FabricKind::RailOptimized, FabricKind::Dragonfly}) {
    CAPTURE(static_cast<int>(kind));
    spec.fabric.kind = kind;
    const Cluster cluster = build_well(spec);
    const Route route = cluster.route(GpuId{0}, GpuId{8 * 63});
    CHECK(route.count > 2);
    CHECK(bottleneck_bytes_per_s(cluster, route) >= 4 * 100e9 / 8 * (1 - 1e-12));
  }
}

TEST_CASE("A rack of 72 GPUs is joined to others by its 72 rails") {
  ClusterSpec spec;
  NodeGroup group;
  group.node = *find_node("gb200-nvl72");
  group.count = 16;
  spec.groups.push_back(group);
  spec.fabric.kind = FabricKind::RailOptimized;
  const ClusterAnalysis analysis = analyse(build_well(spec));
  CHECK(analysis.bisection_bytes_per_s == Approx(8 * 72 * kNicRate));
  CHECK(analysis.diameter_hops == 6);  // 72 leaves are more than spines of 64 ports join
}

TEST_CASE("A single node's bisection is NVLink") {
  CHECK(bisection(plain_cluster(FabricKind::SingleSwitch, 1)) == Approx(4 * kNvlinkRate));
}

TEST_CASE("Thousands of nodes are analysed in about a second") {
  ClusterSpec spec = plain_cluster(FabricKind::RailOptimized, 2048);
  const ClusterAnalysis analysis = analyse(build_well(spec));
  CHECK(analysis.bisection_bytes_per_s == Approx(1024 * 8 * kNicRate));
  CHECK(analysis.diameter_hops == 6);
  CHECK(analysis.components == 1);
}

}  // namespace
}  // namespace rehearse
