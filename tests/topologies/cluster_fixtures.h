#pragma once
#include <algorithm>
#include <string>

#include "plan/problem.h"
#include "tests/catch.h"
#include "topologies/cluster.h"

namespace rehearse {

inline constexpr double kNicRate = 50e9;  // 400 Gbit/s
inline constexpr double kNvlinkRate = 450e9;

/// A server of `gpus` GPUs with as many NICs of 50 GB/s.
inline NodeSpec plain_node(int gpus) {
  NodeSpec node = *find_node("dgx-h100");
  node.gpus = node.nics = gpus;
  return node;
}

inline ClusterSpec plain_cluster(FabricKind kind, int nodes, int gpus = 8) {
  ClusterSpec spec;
  NodeGroup group;
  group.node = plain_node(gpus);
  group.count = nodes;
  spec.groups.push_back(group);
  spec.fabric.kind = kind;
  return spec;
}

/// Builds a cluster that must have no problems.
inline Cluster build_well(const ClusterSpec& spec) {
  Problems problems;
  Cluster cluster = Cluster::build(spec, problems);
  for (const Problem& problem : problems.all()) UNSCOPED_INFO(problem.pointer + problem.message);
  REQUIRE(problems.empty());
  return cluster;
}

/// The problems that a specification leads to.
inline Problems problems_of(const ClusterSpec& spec) {
  Problems problems;
  Cluster::build(spec, problems);
  return problems;
}

inline bool has_problem_at(const Problems& problems, const std::string& pointer) {
  return std::any_of(problems.all().begin(), problems.all().end(),
                     [&](const Problem& problem) { return problem.pointer == pointer; });
}

inline double bottleneck_bytes_per_s(const Cluster& cluster, const Route& route) {
  double least = 1e300;
  for (int i = 0; i < route.count; ++i)
    least = std::min(
        least,
        cluster.links()[static_cast<std::size_t>(route.links[i].value)].bandwidth_bytes_per_s);
  return least;
}

/// The kinds of a route's links, joined by blanks.
inline std::string kinds(const Cluster& cluster, const Route& route) {
  std::string text;
  for (int i = 0; i < route.count; ++i)
    text += std::string(i > 0 ? " " : "") +
            link_kind_name(cluster.links()[static_cast<std::size_t>(route.links[i].value)].kind);
  return text;
}

}  // namespace rehearse
