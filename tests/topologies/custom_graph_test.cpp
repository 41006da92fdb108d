#include <string>

#include "tests/topologies/cluster_fixtures.h"
#include "topologies/cluster.h"
#include "topologies/graph.h"

namespace rehearse {
namespace {

std::string gpu_name(int i) { return std::string("g").append(std::to_string(i)); }

/// One-GPU servers g0 … g(n−1), without edges.
ClusterSpec lone_gpus(int gpus) {
  ClusterSpec spec = plain_cluster(FabricKind::Custom, gpus, 1);
  for (int i = 0; i < gpus; ++i) spec.custom_vertices.push_back({gpu_name(i), true, i});
  return spec;
}

CustomEdge edge(const std::string& from, const std::string& to, double bandwidth = 10e9,
                double latency = 1e-6) {
  CustomEdge e;
  e.from = from;
  e.to = to;
  e.bandwidth_bytes_per_s = bandwidth;
  e.latency_s = latency;
  return e;
}

ClusterSpec ring(int gpus) {
  ClusterSpec spec = lone_gpus(gpus);
  for (int i = 0; i < gpus; ++i)
    spec.custom_edges.push_back(edge(gpu_name(i), gpu_name((i + 1) % gpus)));
  return spec;
}

TEST_CASE("A ring given edge by edge has the diameter and bisection of a ring") {
  const ClusterAnalysis analysis = analyse(build_well(ring(10)));
  CHECK(analysis.diameter_hops == 5);
  CHECK(analysis.diameter_latency_s == Approx(5e-6));
  CHECK(analysis.bisection_bytes_per_s == Approx(20e9));
  CHECK(analysis.full_bisection_bytes_per_s == Approx(5 * 20e9));
  CHECK(analysis.components == 1);
}

TEST_CASE("Custom routes take the fastest way, not the shortest") {
  ClusterSpec spec = lone_gpus(2);
  spec.custom_vertices.push_back({"fast switch", false, 0});
  spec.custom_edges = {edge("g0", "g1", 1e9, 9e-6), edge("g0", "fast switch", 10e9, 1e-6),
                       edge("fast switch", "g1", 20e9, 2e-6)};
  const Cluster cluster = build_well(spec);
  const Route route = cluster.route(GpuId{0}, GpuId{1});
  CHECK(route.count == 2);
  CHECK(route.latency_s == Approx(3e-6));
  CHECK(bottleneck_bytes_per_s(cluster, route) == 10e9);
  const Route back = cluster.route(GpuId{1}, GpuId{0});
  CHECK(back.latency_s == Approx(3e-6));
  CHECK(back.links[0] != route.links[1]);  // the other direction of the cable
}

TEST_CASE("GPU vertices may come in any order and are numbered by their nodes") {
  ClusterSpec spec = plain_cluster(FabricKind::Custom, 2, 2);
  spec.custom_vertices = {
      {"s", false, 0}, {"b1", true, 1}, {"a1", true, 0}, {"b2", true, 1}, {"a2", true, 0}};
  for (const char* name : {"a1", "a2", "b1", "b2"})
    spec.custom_edges.push_back(edge(name, "s", std::string(name) == "b2" ? 1e9 : 10e9));
  const Cluster cluster = build_well(spec);
  CHECK(cluster.node_of(GpuId{1}) == 0);
  CHECK(cluster.node_of(GpuId{2}) == 1);
  CHECK(bottleneck_bytes_per_s(cluster, cluster.route(GpuId{0}, GpuId{3})) == 1e9);
  CHECK(bottleneck_bytes_per_s(cluster, cluster.route(GpuId{0}, GpuId{2})) == 10e9);
}

TEST_CASE("GPUs that are cut off are problems at their vertices, and still analysed") {
  ClusterSpec spec = ring(6);
  spec.custom_edges.erase(spec.custom_edges.begin() + 3, spec.custom_edges.begin() + 5);
  Problems problems;
  const Cluster cluster = Cluster::build(spec, problems);  // g4 lost both cables
  REQUIRE(problems.count() == 1);
  CHECK(problems.all()[0].pointer == "/vertices/4");
  CHECK(problems.all()[0].message.find("g4") != std::string::npos);
  const ClusterAnalysis analysis = analyse(cluster);
  CHECK(analysis.components == 2);
  CHECK(analysis.disconnected == std::vector<std::string>{"g4"});
}

TEST_CASE("A one-way edge does not connect both ways") {
  ClusterSpec spec = lone_gpus(3);
  spec.custom_edges = {edge("g0", "g1"), edge("g1", "g2")};
  spec.custom_edges[1].duplex = false;
  CHECK(has_problem_at(problems_of(spec), "/vertices/2"));
  spec.custom_edges.push_back(edge("g2", "g0"));
  spec.custom_edges[2].duplex = false;
  const Cluster cluster = build_well(spec);
  CHECK(cluster.route(GpuId{2}, GpuId{1}).count == 2);
}

TEST_CASE("Switches that lead nowhere are named by the analysis") {
  ClusterSpec spec = ring(4);
  spec.custom_vertices.push_back({"spare switch", false, 0});
  const ClusterAnalysis analysis = analyse(build_well(spec));
  CHECK(analysis.components == 2);
  CHECK(analysis.disconnected == std::vector<std::string>{"spare switch"});
}

TEST_CASE("Every fault of an inline graph is reported at its place") {
  ClusterSpec spec = ring(4);
  spec.custom_vertices.push_back({"g0", false, 0});
  spec.custom_vertices.push_back({"g9", true, 9});
  spec.custom_edges[1].from = "gg1";
  spec.custom_edges[2].bandwidth_bytes_per_s = 0;
  spec.custom_edges[3].latency_s = -1;
  spec.custom_edges.push_back(edge("g2", "g2"));
  const Problems problems = problems_of(spec);
  CHECK(has_problem_at(problems, "/vertices/4/name"));
  CHECK(has_problem_at(problems, "/vertices/5/node"));
  CHECK(has_problem_at(problems, "/edges/1/from"));
  CHECK(has_problem_at(problems, "/edges/2/bandwidth"));
  CHECK(has_problem_at(problems, "/edges/3/latency"));
  CHECK(has_problem_at(problems, "/edges/4/to"));
  CHECK(problems.count() == 6);

  ClusterSpec missing = ring(4);
  missing.custom_vertices[3].is_gpu = false;
  CHECK(has_problem_at(problems_of(missing), "/vertices"));
}

TEST_CASE("A way with more links than a route can hold is a problem") {
  CHECK(problems_of(ring(2 * Route::kMaxHops)).empty());
  CHECK(has_problem_at(problems_of(ring(2 * Route::kMaxHops + 2)), "/edges"));
}

}  // namespace
}  // namespace rehearse
