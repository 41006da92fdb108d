#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/places.h"
#include "tests/topologies/cluster_fixtures.h"
#include "topologies/cluster.h"

namespace rehearse {
namespace {

std::size_t count_lines(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++count;
  return count;
}

/// Whether Graphviz draws it; true where Graphviz is not installed.
bool graphviz_accepts(const std::string& dot) {
  if (std::system("dot -V > /dev/null 2>&1") != 0) {
    WARN("Graphviz is not installed: the picture is not drawn");
    return true;
  }
  // Tests run beside each other, each in a process of its own: so each has a file of its own.
  const auto path = std::filesystem::path(binary_directory()) /
                    ("topologies_dot_test." + std::to_string(::getpid()) + ".dot");
  std::ofstream(path) << dot;
  const std::string command = "dot -Tsvg '" + path.string() + "' > /dev/null";
  const bool accepted = std::system(command.c_str()) == 0;
  std::filesystem::remove(path);
  return accepted;
}

TEST_CASE("A small cluster is drawn GPU by GPU, a node in a frame") {
  const std::string dot = to_dot(build_well(plain_cluster(FabricKind::RailOptimized, 2, 4)));
  CHECK(count_lines(dot, "subgraph cluster_node_") == 2);
  CHECK(count_lines(dot, "label=\"gpu ") == 8);
  CHECK(count_lines(dot, "label=\"leaf ") == 4);
  CHECK(dot.find("450 GB/s") != std::string::npos);
  CHECK(dot.find("dir=both") != std::string::npos);
  CHECK(graphviz_accepts(dot));
}

TEST_CASE("Beyond eight nodes a node is one box") {
  const std::string dot = to_dot(build_well(plain_cluster(FabricKind::LeafSpine, 16)));
  CHECK(count_lines(dot, "shape=box3d") == 16);
  CHECK(count_lines(dot, "label=\"gpu ") == 0);
  CHECK(count_lines(dot, "8 x 50 GB/s") == 16);
  CHECK(graphviz_accepts(dot));
}

TEST_CASE("Beyond 64 nodes a tier is one box with its count") {
  ClusterSpec spec = plain_cluster(FabricKind::RailOptimized, 2048);
  const auto spreading = GENERATE(Spreading::Adaptive, Spreading::Ecmp);
  spec.fabric.spreading = spreading;
  const std::string dot = to_dot(build_well(spec));
  CHECK(dot.find("2048 x NVIDIA DGX H100 with 8 x h100-sxm-80gb") != std::string::npos);
  CHECK(dot.find("512 leaf switches") != std::string::npos);
  CHECK(dot.find("512 spine switches") != std::string::npos);
  CHECK(dot.find("1024 core switches") != std::string::npos);
  CHECK(dot.find("16384 x 50 GB/s") != std::string::npos);
  CHECK(dot.size() < 2000);
  CHECK(graphviz_accepts(dot));
}

TEST_CASE("Every fabric is drawn, and the same each time") {
  ClusterSpec spec = plain_cluster(FabricKind::SingleSwitch, 12, 2);
  const auto kind = GENERATE(FabricKind::SingleSwitch, FabricKind::FatTree, FabricKind::Torus,
                             FabricKind::Dragonfly);
  spec.fabric.kind = kind;
  spec.fabric.switch_ports = 15;
  spec.fabric.torus_dimensions = {2, 2, 3};
  const std::string dot = to_dot(build_well(spec));
  CHECK(dot == to_dot(build_well(spec)));
  CHECK(graphviz_accepts(dot));
}

TEST_CASE("Names that DOT would misread are quoted") {
  ClusterSpec spec = plain_cluster(FabricKind::Custom, 2, 1);
  spec.custom_vertices = {{"a \"quoted\" name", true, 0}, {"back\\slash -> arrow", true, 1}};
  CustomEdge edge;
  edge.from = spec.custom_vertices[0].name;
  edge.to = spec.custom_vertices[1].name;
  edge.bandwidth_bytes_per_s = 1e9;
  spec.custom_edges = {edge};
  CHECK(graphviz_accepts(to_dot(build_well(spec))));
}

}  // namespace
}  // namespace rehearse
