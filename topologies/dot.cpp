#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "plan/units.h"
#include "topologies/cluster_impl.h"
#include "topologies/graph.h"

namespace rehearse {
namespace {

constexpr int kMostNodesInFull = 8;
constexpr int kMostNodesApart = 64;

/// One box of the picture and what it stands for.
struct Box {
  std::string label{};
  const char* shape = "box";
  std::int32_t node = -1;  ///< drawn inside that node's frame
  std::int64_t devices = 0;
};

/// All edges from one box to another.
struct Bundle {
  std::int64_t edges = 0;
  double bandwidth_bytes_per_s = 0;  ///< of all together
  bool operator==(const Bundle&) const = default;
};

using Bundles = std::map<std::pair<std::int32_t, std::int32_t>, Bundle>;

const char* shape_of(VertexKind kind) {
  switch (kind) {
    case VertexKind::Gpu:
      return "box";
    case VertexKind::Nic:
      return "component";
    case VertexKind::NvSwitch:
    case VertexKind::Host:
      return "ellipse";
    default:
      return "hexagon";
  }
}

const char* tier_name(VertexKind kind) {
  switch (kind) {
    case VertexKind::Leaf:
      return "leaf switches";
    case VertexKind::Spine:
      return "spine switches";
    case VertexKind::Core:
      return "core switches";
    case VertexKind::Switch:
      return "switches";
    default:
      return "other vertices";
  }
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string node_label(const Cluster& cluster, int node) {
  const NodeSpec& spec = cluster.node(node);
  return fmt::format("{} with {} x {}", spec.name.empty() ? spec.id : spec.name,
                     cluster.gpus_in_node(node), spec.gpu.id);
}

/// The picture: which box each vertex belongs to.
class Picture {
 public:
  Picture(const Cluster& cluster, const ClusterGraph& graph) : cluster_(cluster), graph_(graph) {
    for (const GraphVertex& vertex : graph.vertices()) {
      if (cluster.node_count() <= kMostNodesInFull)
        place_alone(vertex);
      else if (cluster.node_count() <= kMostNodesApart)
        place_in_node(vertex);
      else
        place_in_tier(vertex);
      boxes_[static_cast<std::size_t>(box_of_vertex_.back())].devices += vertex.count;
    }
  }

  std::string text() const;

 private:
  void place_alone(const GraphVertex& vertex) {
    box_of_vertex_.push_back(static_cast<std::int32_t>(boxes_.size()));
    boxes_.push_back({vertex_name(cluster_, vertex), shape_of(vertex.kind), vertex.node, 0});
  }
  void place_in_node(const GraphVertex& vertex) {
    if (vertex.node < 0) return place_alone(vertex);
    const auto [place, fresh] =
        box_of_key_.emplace(vertex.node, static_cast<std::int32_t>(boxes_.size()));
    if (fresh)
      boxes_.push_back(
          {fmt::format("node {}\n{}", vertex.node, node_label(cluster_, vertex.node)), "box3d"});
    box_of_vertex_.push_back(place->second);
  }
  void place_in_tier(const GraphVertex& vertex) {
    const bool in_node = vertex.node >= 0;
    const std::int32_t key =
        in_node ? cluster_.impl().group_of_node[static_cast<std::size_t>(vertex.node)]
                : -1 - static_cast<std::int32_t>(vertex.kind);
    const auto [place, fresh] = box_of_key_.emplace(key, static_cast<std::int32_t>(boxes_.size()));
    if (fresh && in_node)
      boxes_.push_back(
          {fmt::format("{} x {}", cluster_.spec().groups[static_cast<std::size_t>(key)].count,
                       node_label(cluster_, vertex.node)),
           "box3d"});
    else if (fresh)
      boxes_.push_back({tier_name(vertex.kind), shape_of(vertex.kind)});
    box_of_vertex_.push_back(place->second);
  }
  Bundles bundles() const;
  void write_box(std::string& out, std::size_t box) const;

  const Cluster& cluster_;
  const ClusterGraph& graph_;
  std::vector<Box> boxes_;
  std::vector<std::int32_t> box_of_vertex_;
  std::map<std::int32_t, std::int32_t> box_of_key_;
};

Bundles Picture::bundles() const {
  Bundles bundles;
  const bool tiers = cluster_.node_count() > kMostNodesApart;
  for (const GraphEdge& edge : graph_.edges()) {
    const std::int32_t from = box_of_vertex_[static_cast<std::size_t>(edge.from)];
    const std::int32_t to = box_of_vertex_[static_cast<std::size_t>(edge.to)];
    const bool network = graph_.vertices()[static_cast<std::size_t>(edge.from)].node !=
                         graph_.vertices()[static_cast<std::size_t>(edge.to)].node;
    // Within a tier only what leaves a node is worth a loop.
    if (from == to && !(tiers && network)) continue;
    Bundle& bundle = bundles[{from, to}];
    ++bundle.edges;
    bundle.bandwidth_bytes_per_s += edge.bandwidth_bytes_per_s;
  }
  return bundles;
}

void Picture::write_box(std::string& out, std::size_t box) const {
  const Box& b = boxes_[box];
  const bool counted = cluster_.node_count() > kMostNodesApart && b.shape != std::string("box3d");
  const std::string label = counted ? fmt::format("{} {}", b.devices, b.label) : b.label;
  std::string escaped;
  for (const char c : quoted(label)) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
  out += fmt::format("  v{} [label={}, shape={}];\n", box, escaped, b.shape);
}

std::string Picture::text() const {
  std::string out =
      "digraph cluster {\n  graph [rankdir=BT, ranksep=1];\n"
      "  node [fontname=\"Helvetica\"];\n  edge [fontname=\"Helvetica\", fontsize=9];\n";
  std::map<std::int32_t, std::vector<std::size_t>> frames;
  for (std::size_t b = 0; b < boxes_.size(); ++b) frames[boxes_[b].node].push_back(b);
  for (const auto& [node, members] : frames) {
    if (node >= 0)
      out += fmt::format("  subgraph cluster_node_{} {{\n  label={};\n", node,
                         quoted(fmt::format("node {}: {}", node, node_label(cluster_, node))));
    for (const std::size_t box : members) write_box(out, box);
    if (node >= 0) out += "  }\n";
  }
  const Bundles all = bundles();
  for (const auto& [ends, bundle] : all) {
    const auto back = all.find({ends.second, ends.first});
    const bool both = ends.first != ends.second && back != all.end() && back->second == bundle;
    if (both && ends.first > ends.second) continue;
    const std::string rate =
        format_rate(bundle.bandwidth_bytes_per_s / static_cast<double>(bundle.edges));
    out +=
        fmt::format("  v{} -> v{} [label={}{}];\n", ends.first, ends.second,
                    quoted(bundle.edges == 1 ? rate : fmt::format("{} x {}", bundle.edges, rate)),
                    both ? ", dir=both" : "");
  }
  return out + "}\n";
}

}  // namespace

std::string to_dot(const Cluster& cluster) {
  const ClusterGraph graph = cluster_graph(cluster);
  return Picture(cluster, graph).text();
}

}  // namespace rehearse
