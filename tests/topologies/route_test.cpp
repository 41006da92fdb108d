#include <map>
#include <random>
#include <set>

#include "tests/topologies/cluster_fixtures.h"
#include "topologies/cluster.h"
#include "topologies/cluster_impl.h"
#include "topologies/graph.h"

namespace rehearse {
namespace {

/// Walks a route over the graph's edges; between two links it may cross an edge that is none
/// (GPU to NIC). Returns false where no such walk ends at `to`.
class Walker {
 public:
  explicit Walker(const ClusterGraph& graph) : graph_(graph) {
    for (const GraphEdge& edge : graph.edges()) {
      if (edge.link.value >= 0)
        edge_of_link_[edge.link] = &edge;
      else
        bridges_.insert({{edge.from, edge.to}, &edge});
    }
  }

  bool leads(const Route& route, std::int32_t from, std::int32_t to) const {
    std::int32_t at = from;
    for (int i = 0; i < route.count; ++i) {
      const auto found = edge_of_link_.find(route.links[i]);
      if (found == edge_of_link_.end() || !step(at, found->second->from)) return false;
      at = found->second->to;
    }
    return step(at, to);
  }

 private:
  bool step(std::int32_t at, std::int32_t to) const {
    return at == to || bridges_.count({at, to}) > 0;
  }
  const ClusterGraph& graph_;
  std::map<LinkId, const GraphEdge*> edge_of_link_;
  std::map<std::pair<std::int32_t, std::int32_t>, const GraphEdge*> bridges_;
};

/// Fewest links between two dragonfly switches over one global cable at most: shorter ways through
/// a third group are not minimal routes.
int fewest_dragonfly_links(const Cluster& cluster, const ClusterGraph& switches, std::int32_t from,
                           std::int32_t to) {
  const auto kind = [&](const GraphEdge& edge) {
    return cluster.links()[static_cast<std::size_t>(edge.link.value)].kind;
  };
  std::set<std::pair<std::int32_t, std::int32_t>> neighbours;  // within a group
  for (const GraphEdge& edge : switches.edges())
    if (kind(edge) == LinkKind::Group) neighbours.insert({edge.from, edge.to});
  const auto local_hops = [&](std::int32_t a, std::int32_t b) {
    return a == b ? 0 : neighbours.count({a, b}) > 0 ? 1 : 1000;
  };
  int fewest = local_hops(from, to);
  for (const GraphEdge& edge : switches.edges())
    if (kind(edge) == LinkKind::Global)
      fewest = std::min(fewest, local_hops(from, edge.from) + 1 + local_hops(edge.to, to));
  return fewest;
}

/// Fewest links on a way between two GPUs that starts and ends at their own NICs, from the graph of
/// the switches.
int fewest_links(const Cluster& cluster, const ClusterGraph& switches, GpuId from, GpuId to) {
  const Cluster::Impl& impl = cluster.impl();
  if (cluster.node_of(from) == cluster.node_of(to)) return 2;
  const auto switch_of = [&](GpuId gpu) {
    return impl.fabric->switch_of(impl.port_of_gpu[static_cast<std::size_t>(gpu.value)]);
  };
  const auto slots = [&](GpuId gpu) { return cluster.node(cluster.node_of(gpu)).nvswitch ? 0 : 1; };
  const int between =
      cluster.spec().fabric.kind == FabricKind::Dragonfly
          ? fewest_dragonfly_links(cluster, switches, switch_of(from), switch_of(to))
          : switches.shortest_ways(switch_of(from), WayOrder::FewestHops)
                .hops[static_cast<std::size_t>(switch_of(to))];
  return between + 2 + slots(from) + slots(to);
}

double sum_of_latencies_s(const Cluster& cluster, const Route& route) {
  double sum = 0;
  for (int i = 0; i < route.count; ++i)
    sum += cluster.links()[static_cast<std::size_t>(route.links[i].value)].latency_s;
  return sum;
}

/// Routes from a sample of sources to all GPUs: paths of the graph, with their latency, that no
/// path beats in hops.
void check_routes(const Cluster& cluster, std::mt19937& random) {
  const ClusterGraph graph = cluster_graph(cluster);
  const ClusterGraph switches =
      cluster.node_count() > 1 ? fabric_graph(cluster.impl()) : ClusterGraph({GraphVertex{}}, {});
  const Walker walker(graph);
  std::uniform_int_distribution<int> any_gpu(0, cluster.gpu_count() - 1);
  for (int source = 0; source < 3; ++source) {
    const GpuId from{source == 0 ? 0 : any_gpu(random)};
    for (std::int32_t gpu = 0; gpu < cluster.gpu_count(); ++gpu) {
      if (gpu == from.value) continue;
      const Route route = cluster.route(from, GpuId{gpu});
      const Route back = cluster.route(GpuId{gpu}, from);
      CAPTURE(from.value, gpu);
      REQUIRE(walker.leads(route, from.value, gpu));
      REQUIRE(route.count == fewest_links(cluster, switches, from, GpuId{gpu}));
      REQUIRE(route.latency_s == Approx(sum_of_latencies_s(cluster, route)));
      REQUIRE(back.count == route.count);
      REQUIRE(back.latency_s == Approx(route.latency_s));
      REQUIRE(bottleneck_bytes_per_s(cluster, route) > 0);
    }
  }
}

int pick(std::mt19937& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

ClusterSpec random_spec(std::mt19937& random) {
  static constexpr FabricKind kKinds[] = {FabricKind::SingleSwitch, FabricKind::LeafSpine,
                                          FabricKind::FatTree,      FabricKind::RailOptimized,
                                          FabricKind::Torus,        FabricKind::Dragonfly};
  ClusterSpec spec;
  spec.fabric.kind = kKinds[pick(random, 0, 5)];
  spec.fabric.spreading = pick(random, 0, 1) == 0 ? Spreading::Adaptive : Spreading::Ecmp;
  spec.fabric.switch_ports = pick(random, 4, 48);
  spec.fabric.hop_latency_s = pick(random, 1, 9) * 1e-7;
  const bool leaves =
      spec.fabric.kind != FabricKind::SingleSwitch && spec.fabric.kind < FabricKind::Torus;
  if (leaves) spec.fabric.oversubscription = pick(random, 1, 4);
  int nodes = 0;
  const int groups = pick(random, 1, 3);
  for (int g = 0; g < groups; ++g) {
    NodeGroup group;
    group.node = plain_node(pick(random, 1, 8));
    group.node.nics = pick(random, 1, 12);
    group.node.nvswitch = pick(random, 0, 2) > 0;
    group.node.nic_bandwidth_bytes_per_s = pick(random, 1, 8) * 12.5e9;
    group.count = pick(random, 1, 20);
    nodes += group.count;
    spec.groups.push_back(group);
  }
  if (spec.fabric.kind == FabricKind::Torus) {
    const int side = pick(random, 1, 4);
    spec.groups[0].count += (side - nodes % side) % side;
    nodes += (side - nodes % side) % side;
    spec.fabric.torus_dimensions = {side, nodes / side};
  }
  return spec;
}

TEST_CASE("On random clusters every route is a shortest path of the graph") {
  const unsigned seed = 20250217;
  std::mt19937 random(seed);
  int built = 0;
  std::map<FabricKind, int> kinds_built;
  for (int i = 0; i < 600; ++i) {
    CAPTURE(seed, i);
    const ClusterSpec spec = random_spec(random);
    Problems problems;
    const Cluster cluster = Cluster::build(spec, problems);
    if (!problems.empty()) {
      // Refused for a reason that lies in the fabric, never silently.
      for (const Problem& problem : problems.all()) {
        REQUIRE(problem.pointer.rfind("/fabric/", 0) == 0);
        REQUIRE_FALSE(problem.message.empty());
      }
      REQUIRE(cluster.gpu_count() == 0);
      continue;
    }
    ++built;
    ++kinds_built[spec.fabric.kind];
    check_routes(cluster, random);
  }
  CHECK(built > 300);
  for (const auto& [kind, count] : kinds_built) {
    CAPTURE(static_cast<int>(kind));
    CHECK(count >= 20);
  }
  CHECK(kinds_built.size() == 6);
}

/// Max flow between the halves over every single GPU and NIC, for comparison.
double whole_graph_bisection(const Cluster& cluster) {
  const ClusterGraph graph = cluster_graph(cluster);
  std::vector<ClusterGraph::Terminal> sources, sinks;
  for (std::int32_t gpu = 0; gpu < cluster.gpu_count(); ++gpu)
    (cluster.node_of(GpuId{gpu}) < cluster.node_count() / 2 ? sources : sinks)
        .push_back({gpu, 1e13});
  return graph.max_flow_bytes_per_s(sources, sinks);
}

TEST_CASE("The aggregated bisection equals that of the whole graph") {
  std::mt19937 random(7);
  int compared = 0;
  for (int i = 0; i < 150; ++i) {
    CAPTURE(i);
    const ClusterSpec spec = random_spec(random);
    Problems problems;
    const Cluster cluster = Cluster::build(spec, problems);
    if (!problems.empty() || cluster.node_count() < 2) continue;
    const ClusterAnalysis analysis = analyse(cluster);
    // Capacities are whole bytes/s, rounded edge by edge.
    REQUIRE(analysis.bisection_bytes_per_s == Approx(whole_graph_bisection(cluster)).margin(1000));
    REQUIRE(analysis.components == 1);
    ++compared;
  }
  CHECK(compared > 75);
}

TEST_CASE("The analysed diameter is that of all routes") {
  std::mt19937 random(11);
  int compared = 0;
  for (int i = 0; i < 80; ++i) {
    CAPTURE(i);
    const ClusterSpec spec = random_spec(random);
    Problems problems;
    const Cluster cluster = Cluster::build(spec, problems);
    if (!problems.empty() || cluster.gpu_count() < 2) continue;
    int hops = 0;
    double latency_s = 0;
    for (std::int32_t a = 0; a < cluster.gpu_count(); ++a)
      for (std::int32_t b = 0; b < cluster.gpu_count(); ++b) {
        if (a == b) continue;
        const Route route = cluster.route(GpuId{a}, GpuId{b});
        hops = std::max<int>(hops, route.count);
        latency_s = std::max(latency_s, route.latency_s);
      }
    const ClusterAnalysis analysis = analyse(cluster);
    if (spec.fabric.kind == FabricKind::Dragonfly) {
      // The graph has shorter ways than minimal routes, through a third group.
      REQUIRE(analysis.diameter_hops <= hops);
      REQUIRE(analysis.diameter_latency_s <= latency_s * (1 + 1e-12));
      continue;
    }
    REQUIRE(analysis.diameter_hops == hops);
    REQUIRE(analysis.diameter_latency_s == Approx(latency_s));
    ++compared;
  }
  CHECK(compared > 40);
}

}  // namespace
}  // namespace rehearse
