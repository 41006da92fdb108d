#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "plan/edit_distance.h"
#include "plan/ensure.h"
#include "topologies/cluster_impl.h"

namespace rehearse {
namespace {

// The table of ways takes one Dijkstra a GPU; this bound keeps building under a few seconds.
constexpr std::int64_t kMostWork = 30'000'000;  // GPUs · (vertices + edges)
// Problems of one kind that are listed one by one.
constexpr int kMostListed = 16;

using VertexNumbers = std::map<std::string, std::int32_t>;

VertexNumbers number_vertices(const ClusterSpec& spec, Problems& problems) {
  VertexNumbers numbers;
  for (std::size_t v = 0; v < spec.custom_vertices.size(); ++v) {
    const std::string& name = spec.custom_vertices[v].name;
    const bool fresh = numbers.emplace(name, static_cast<std::int32_t>(v)).second;
    if (!fresh)
      add_problem(problems, fmt::format("/vertices/{}/name", v),
                  fmt::format("there is already a vertex \"{}\"", name));
  }
  return numbers;
}

void check_edge_end(const VertexNumbers& numbers, const std::string& name,
                    const std::string& pointer, Problems& problems) {
  if (numbers.count(name) > 0) return;
  std::vector<std::string> known;
  for (const auto& [known_name, number] : numbers) known.push_back(known_name);
  add_problem(problems, pointer, fmt::format("there is no vertex \"{}\"", name),
              name_hint(name, known));
}

void check_edges(const ClusterSpec& spec, const VertexNumbers& numbers, Problems& problems) {
  for (std::size_t e = 0; e < spec.custom_edges.size(); ++e) {
    const CustomEdge& edge = spec.custom_edges[e];
    const std::string at = fmt::format("/edges/{}", e);
    check_edge_end(numbers, edge.from, at + "/from", problems);
    check_edge_end(numbers, edge.to, at + "/to", problems);
    if (edge.from == edge.to)
      add_problem(problems, at + "/to", "an edge joins two different vertices");
    if (!(std::isfinite(edge.bandwidth_bytes_per_s) && edge.bandwidth_bytes_per_s > 0))
      add_problem(problems, at + "/bandwidth", "an edge needs a bandwidth above zero");
    if (!(std::isfinite(edge.latency_s) && edge.latency_s >= 0))
      add_problem(problems, at + "/latency", "a latency is a finite time of zero or more");
  }
}

/// Numbers nodes and GPUs as the groups say, and finds each GPU's vertex.
void place_gpus(Cluster::Impl& impl, Problems& problems) {
  std::vector<std::vector<std::int32_t>> gpus_of_node;
  for (std::size_t g = 0; g < impl.spec.groups.size(); ++g)
    for (int n = 0; n < impl.spec.groups[g].count; ++n) {
      impl.group_of_node.push_back(static_cast<std::int32_t>(g));
      gpus_of_node.emplace_back();
    }
  const auto& vertices = impl.spec.custom_vertices;
  for (std::size_t v = 0; v < vertices.size(); ++v) {
    if (!vertices[v].is_gpu) continue;
    if (vertices[v].node < 0 || vertices[v].node >= impl.node_count())
      add_problem(problems, fmt::format("/vertices/{}/node", v),
                  fmt::format("the cluster has nodes 0 to {}", impl.node_count() - 1));
    else
      gpus_of_node[static_cast<std::size_t>(vertices[v].node)].push_back(
          static_cast<std::int32_t>(v));
  }
  impl.custom->gpu_of_vertex.assign(vertices.size(), -1);
  impl.first_gpu_of_node.push_back(0);
  for (std::int32_t n = 0; n < impl.node_count(); ++n) {
    const auto& gpus = gpus_of_node[static_cast<std::size_t>(n)];
    if (static_cast<int>(gpus.size()) != impl.group(n).node.gpus)
      add_problem(problems, "/vertices",
                  fmt::format("node {} has {} GPU vertices, and its description says {} GPUs", n,
                              gpus.size(), impl.group(n).node.gpus));
    for (const std::int32_t v : gpus) {
      impl.custom->gpu_of_vertex[static_cast<std::size_t>(v)] = impl.gpu_count();
      impl.custom->vertex_of_gpu.push_back(v);
      impl.node_of_gpu.push_back(n);
    }
    impl.first_gpu_of_node.push_back(impl.gpu_count());
  }
}

void append_links(Cluster::Impl& impl, const VertexNumbers& numbers) {
  const auto append_one = [&](const CustomEdge& edge, const std::string& from,
                              const std::string& to) {
    const auto number = static_cast<std::int32_t>(impl.links.size());
    impl.links.push_back({.kind = LinkKind::Custom,
                          .bandwidth_bytes_per_s = edge.bandwidth_bytes_per_s,
                          .latency_s = edge.latency_s,
                          .owner = number});
    impl.custom->from.push_back(numbers.at(from));
    impl.custom->to.push_back(numbers.at(to));
  };
  for (const CustomEdge& edge : impl.spec.custom_edges) {
    append_one(edge, edge.from, edge.to);
    if (edge.duplex) append_one(edge, edge.to, edge.from);
  }
}

/// One problem for each GPU outside the component that holds most of them.
bool report_unreachable(const Cluster::Impl& impl, const ClusterGraph& graph, Problems& problems) {
  const std::vector<std::int32_t> component = graph.strong_components();
  const std::vector<std::int32_t>& gpu_vertices = impl.custom->vertex_of_gpu;
  std::map<std::int32_t, int> gpus;
  for (const std::int32_t v : gpu_vertices) ++gpus[component[static_cast<std::size_t>(v)]];
  const std::int32_t home =
      std::max_element(gpus.begin(), gpus.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->first;
  int cut_off = 0;
  for (const std::int32_t v : gpu_vertices) {
    if (component[static_cast<std::size_t>(v)] == home || ++cut_off > kMostListed) continue;
    add_problem(problems, fmt::format("/vertices/{}", v),
                fmt::format("the GPU \"{}\" has no way to and from the other GPUs",
                            impl.custom->names[static_cast<std::size_t>(v)]),
                "add an edge, or make one duplex");
  }
  if (cut_off > kMostListed)
    add_problem(problems, "/vertices",
                fmt::format("{} more GPUs are cut off", cut_off - kMostListed));
  return cut_off > 0;
}

void tabulate_ways(Cluster::Impl& impl, const ClusterGraph& graph, Problems& problems) {
  CustomGraph& custom = *impl.custom;
  std::int32_t longest = 0;
  for (const std::int32_t source : custom.vertex_of_gpu) {
    const ShortestWays ways = graph.shortest_ways(source, WayOrder::LeastLatency);
    custom.last_link.insert(custom.last_link.end(), ways.incoming_edge.begin(),
                            ways.incoming_edge.end());
    for (const std::int32_t v : custom.vertex_of_gpu)
      longest = std::max(longest, ways.hops[static_cast<std::size_t>(v)]);
  }
  if (longest > Route::kMaxHops)
    add_problem(problems, "/edges",
                fmt::format("the longest way between two GPUs crosses {} edges, and at most {} are "
                            "simulated",
                            longest, Route::kMaxHops));
}

}  // namespace

void CustomGraph::append_way(GpuId from_gpu, GpuId to_gpu, Route& route) const {
  const std::int32_t source = vertex_of_gpu[static_cast<std::size_t>(from_gpu.value)];
  const std::size_t row = static_cast<std::size_t>(from_gpu.value) * names.size();
  std::int32_t at = vertex_of_gpu[static_cast<std::size_t>(to_gpu.value)];
  ensure(!last_link.empty(), "routes exist only in clusters built without problems");
  while (at != source) {
    const std::int32_t link = last_link[row + static_cast<std::size_t>(at)];
    append(route, link);
    at = from[static_cast<std::size_t>(link)];
  }
  std::reverse(route.links, route.links + route.count);
}

void build_custom_graph(Cluster::Impl& impl, Problems& problems) {
  const std::size_t before = problems.count();
  impl.custom = std::make_unique<CustomGraph>();
  const VertexNumbers numbers = number_vertices(impl.spec, problems);
  check_edges(impl.spec, numbers, problems);
  place_gpus(impl, problems);
  const auto size = static_cast<std::int64_t>(impl.spec.custom_vertices.size() +
                                              2 * impl.spec.custom_edges.size());
  if (impl.gpu_count() * size > kMostWork)
    add_problem(problems, "/vertices",
                fmt::format("inline graphs are limited to {} GPUs · (vertices + edges), and this "
                            "one has {}",
                            kMostWork, impl.gpu_count() * size),
                "use one of the named fabrics");
  if (problems.count() > before) {
    const ClusterSpec spec = impl.spec;
    impl = Cluster::Impl{};
    impl.spec = spec;
    return;
  }
  for (const CustomVertex& vertex : impl.spec.custom_vertices)
    impl.custom->names.push_back(vertex.name);
  append_links(impl, numbers);
  const ClusterGraph graph = cluster_graph(impl);
  if (!report_unreachable(impl, graph, problems)) tabulate_ways(impl, graph, problems);
}

}  // namespace rehearse
