#include <limits>

#include "tests/topologies/cluster_fixtures.h"
#include "topologies/cluster.h"

namespace rehearse {
namespace {

TEST_CASE("Torus dimensions must multiply to the nodes") {
  ClusterSpec spec = plain_cluster(FabricKind::Torus, 64);
  spec.fabric.torus_dimensions = {4, 4, 5};
  const Problems problems = problems_of(spec);
  REQUIRE(has_problem_at(problems, "/fabric/torus_dimensions"));
  CHECK(problems.all()[0].message.find("80") != std::string::npos);
  CHECK(problems.all()[0].hint == "for 64 nodes: [4, 4, 4]");
  for (const std::vector<int>& bad :
       {std::vector<int>{}, {0, 64}, {-8, -8}, {2, 2, 4, 4}, {1 << 30, 1 << 30, 1 << 30}}) {
    spec.fabric.torus_dimensions = bad;
    CHECK(has_problem_at(problems_of(spec), "/fabric/torus_dimensions"));
  }
  spec.groups[0].count = 200;
  spec.fabric.torus_dimensions = {200};  // 100 hops half-way round
  CHECK(has_problem_at(problems_of(spec), "/fabric/torus_dimensions"));
}

TEST_CASE("Switches with too few ports are named with what would help") {
  ClusterSpec spec = plain_cluster(FabricKind::LeafSpine, 4);
  spec.fabric.switch_ports = 8;  // a node's 8 NICs on 4 ports towards hosts
  CHECK(has_problem_at(problems_of(spec), "/fabric/switch_ports"));

  spec = plain_cluster(FabricKind::LeafSpine, 2048);  // 512 leaves under spines of 64 ports
  const Problems problems = problems_of(spec);
  REQUIRE(has_problem_at(problems, "/fabric/switch_ports"));
  CHECK(problems.all()[0].hint.find("fat-tree") != std::string::npos);

  spec = plain_cluster(FabricKind::FatTree, 17, 1);
  spec.fabric.switch_ports = 4;  // k³/4 = 16 hosts
  CHECK(has_problem_at(problems_of(spec), "/fabric/switch_ports"));

  spec = plain_cluster(FabricKind::Dragonfly, 73, 1);
  spec.fabric.switch_ports = 7;  // 72 hosts
  CHECK(has_problem_at(problems_of(spec), "/fabric/switch_ports"));
  spec.fabric.switch_ports = 2;
  CHECK(has_problem_at(problems_of(spec), "/fabric/switch_ports"));

  spec = plain_cluster(FabricKind::RailOptimized, 64);
  spec.fabric.nodes_per_rail_group = 33;
  CHECK(has_problem_at(problems_of(spec), "/fabric/nodes_per_rail_group"));
}

TEST_CASE("Numbers that cannot be are problems at their places") {
  const double not_a_number = std::numeric_limits<double>::quiet_NaN();
  ClusterSpec spec = plain_cluster(FabricKind::FatTree, 4);
  spec.groups[0].node.nic_bandwidth_bytes_per_s = 0;
  spec.groups[0].node.nic_latency_s = -1e-6;
  spec.groups[0].node.nic_duplex = 0.4;
  spec.groups[0].node.nic_goodput = 1.1;
  spec.groups[0].node.gpu.nvlink_bandwidth_bytes_per_s = not_a_number;
  spec.groups[0].speed = 0;
  spec.fabric.oversubscription = not_a_number;
  spec.fabric.hop_latency_s = -1;
  spec.fabric.switch_ports = 0;
  const Problems problems = problems_of(spec);
  CHECK(has_problem_at(problems, "/node/nic_bandwidth"));
  CHECK(has_problem_at(problems, "/node/nic_latency"));
  CHECK(has_problem_at(problems, "/node/nic_duplex"));
  CHECK(has_problem_at(problems, "/node/nic_goodput"));
  CHECK(has_problem_at(problems, "/node/nvswitch"));
  CHECK(has_problem_at(problems, "/speed"));
  CHECK(has_problem_at(problems, "/fabric/oversubscription"));
  CHECK(has_problem_at(problems, "/fabric/hop_latency"));
  CHECK(has_problem_at(problems, "/fabric/switch_ports"));
  CHECK(problems.count() == 9);
}

TEST_CASE("Groups are named by their number when there are several") {
  ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 4);
  spec.groups.push_back(spec.groups[0]);
  spec.groups[1].count = 0;
  spec.groups[1].node.nics = 0;
  const Problems problems = problems_of(spec);
  CHECK(has_problem_at(problems, "/groups/1/nodes"));
  CHECK(has_problem_at(problems, "/groups/1/node/nics"));
  CHECK(problems.count() == 2);
  CHECK(problems_of(ClusterSpec{}).count() == 1);
}

TEST_CASE("A lone node needs no NIC and no fabric") {
  ClusterSpec spec = plain_cluster(FabricKind::Torus, 1);
  spec.groups[0].node.nics = 0;
  const Cluster cluster = build_well(spec);
  CHECK(cluster.gpu_count() == 8);
  CHECK(cluster.links().size() == 16);
}

TEST_CASE("Oversubscription is refused where there are no leaves") {
  for (const auto kind : {FabricKind::SingleSwitch, FabricKind::Dragonfly, FabricKind::Torus}) {
    ClusterSpec spec = plain_cluster(kind, 4);
    spec.fabric.torus_dimensions = {4};
    spec.fabric.oversubscription = 2;
    CHECK(has_problem_at(problems_of(spec), "/fabric/oversubscription"));
  }
}

TEST_CASE("A cluster larger than anyone simulates is a problem, not an exhausted memory") {
  CHECK(has_problem_at(problems_of(plain_cluster(FabricKind::SingleSwitch, 2'000'000'000)),
                       "/nodes"));
}

}  // namespace
}  // namespace rehearse
