#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "topologies/fabric.h"

// A torus of nodes without switches: a node's NICs are cabled to its neighbours, so its total NIC
// rate is divided among the 2·D directions of the D dimensions that are longer than one. In a
// dimension of length two both cables end at the same neighbour and are one link of twice the rate.
// Routes are dimension-order: the first dimension first, the shorter way round; half-way round an
// even ring, even coordinates go up and odd ones down, which keeps both directions busy.

namespace rehearse {
namespace {

class Torus : public Fabric {
 public:
  Torus(const FabricSpec& spec, const PortTable& table, std::vector<Link>& links);

  void append_way(std::int32_t from_port, std::int32_t to_port, std::uint64_t,
                  Route& route) const override {
    std::int32_t at = node_of_port_[static_cast<std::size_t>(from_port)];
    const std::int32_t to = node_of_port_[static_cast<std::size_t>(to_port)];
    for (const Dimension& dimension : dimensions_) {
      const std::int32_t here = at / dimension.stride % dimension.length;
      const std::int32_t there = to / dimension.stride % dimension.length;
      const bool up = goes_up(here, there, dimension.length);
      for (std::int32_t c = here; c != there;) {
        append(route, link(at, dimension, up));
        const std::int32_t next = (c + (up ? 1 : dimension.length - 1)) % dimension.length;
        at += (next - c) * dimension.stride;
        c = next;
      }
    }
  }

  std::int32_t switch_of(std::int32_t port) const override {
    return node_of_port_[static_cast<std::size_t>(port)];
  }
  double exit_latency_s() const override { return 0; }  // the last cable ends in the node itself
  void append_graph(const std::vector<Link>& links, GraphParts& parts) const override;

 private:
  struct Dimension {
    std::int32_t length = 1, stride = 1;
    std::int32_t first_direction = 0;  ///< place among a node's links
  };

  static bool goes_up(std::int32_t here, std::int32_t there, std::int32_t length) {
    const std::int32_t distance = (there - here + length) % length;
    if (2 * distance == length) return length == 2 || here % 2 == 0;
    return 2 * distance < length;
  }
  std::int32_t link(std::int32_t node, const Dimension& dimension, bool up) const {
    return first_link_ + node * directions_ + dimension.first_direction +
           (up || dimension.length == 2 ? 0 : 1);
  }
  std::int32_t neighbour(std::int32_t node, const Dimension& dimension, bool up) const {
    const std::int32_t here = node / dimension.stride % dimension.length;
    const std::int32_t next = (here + (up ? 1 : dimension.length - 1)) % dimension.length;
    return node + (next - here) * dimension.stride;
  }

  std::vector<std::int32_t> node_of_port_;
  std::vector<Dimension> dimensions_;
  std::int32_t nodes_ = 0, directions_ = 0, first_link_ = 0;
};

Torus::Torus(const FabricSpec& spec, const PortTable& table, std::vector<Link>& links)
    : nodes_(table.nodes()), first_link_(static_cast<std::int32_t>(links.size())) {
  std::int32_t stride = 1;
  for (const int length : spec.torus_dimensions) {
    if (length > 1) dimensions_.push_back({length, stride, directions_});
    if (length > 1) directions_ += length == 2 ? 1 : 2;
    stride *= length;
  }
  std::vector<double> total(static_cast<std::size_t>(nodes_), 0);
  for (const Port& port : table.ports) {
    node_of_port_.push_back(port.node);
    total[static_cast<std::size_t>(port.node)] += port.bandwidth_bytes_per_s;
  }
  const double cables = 2.0 * static_cast<double>(dimensions_.size());
  for (std::int32_t node = 0; node < nodes_; ++node)
    for (const Dimension& dimension : dimensions_)
      for (const bool up : {true, false}) {
        if (!up && dimension.length == 2) continue;
        // A cable is as fast as the slower of its two nodes lets it be.
        const double rate =
            std::min(total[static_cast<std::size_t>(node)],
                     total[static_cast<std::size_t>(neighbour(node, dimension, up))]);
        links.push_back({.kind = LinkKind::Torus,
                         .bandwidth_bytes_per_s = rate / cables * (dimension.length == 2 ? 2 : 1),
                         .latency_s = hop_latency_s(spec),
                         .owner = node,
                         .index = dimension.first_direction + (up ? 0 : 1)});
      }
}

void Torus::append_graph(const std::vector<Link>& links, GraphParts& parts) const {
  const auto first = static_cast<std::int32_t>(parts.vertices.size());
  for (std::int32_t node = 0; node < nodes_; ++node)
    parts.vertices.push_back({.kind = VertexKind::Router, .index = node, .node = node});
  for (std::int32_t node = 0; node < nodes_; ++node)
    for (const Dimension& dimension : dimensions_)
      for (const bool up : {true, false}) {
        if (!up && dimension.length == 2) continue;
        append_edge(parts, first + node, first + neighbour(node, dimension, up),
                    link(node, dimension, up), links);
      }
}

/// The most cubic dimensions that multiply to the number, as a hint.
std::string suggested_dimensions(int nodes) {
  int best[3] = {nodes, 1, 1};
  for (int a = 1; a * a * a <= nodes; ++a) {
    if (nodes % a != 0) continue;
    for (int b = a; a * b * b <= nodes; ++b)
      if (nodes / a % b == 0 && nodes / a / b - a < best[0] - best[2]) {
        best[0] = nodes / a / b;
        best[1] = b;
        best[2] = a;
      }
  }
  return fmt::format("for {} nodes: [{}, {}, {}]", nodes, best[2], best[1], best[0]);
}

}  // namespace

std::unique_ptr<Fabric> make_torus(const FabricSpec& spec, const PortTable& table,
                                   std::vector<Link>& links, Problems& problems) {
  const auto& dimensions = spec.torus_dimensions;
  std::int64_t product = 1;
  int longest_way = 0;
  bool sane = !dimensions.empty() && dimensions.size() <= 3;
  for (const int length : dimensions) {
    sane = sane && length >= 1 && product <= (1 << 24);
    if (!sane) break;
    product *= length;
    longest_way += length / 2;
  }
  if (!sane) {
    add_problem(problems, "/fabric/torus_dimensions",
                "a torus has one to three dimensions, each of length 1 or more",
                suggested_dimensions(table.nodes()));
    return nullptr;
  }
  if (product != table.nodes()) {
    add_problem(problems, "/fabric/torus_dimensions",
                fmt::format("the dimensions multiply to {}, and the cluster has {} nodes", product,
                            table.nodes()),
                suggested_dimensions(table.nodes()));
    return nullptr;
  }
  constexpr int kEndHops = 6;  // PCIe and NIC at both ends
  if (longest_way + kEndHops > Route::kMaxHops) {
    add_problem(problems, "/fabric/torus_dimensions",
                fmt::format("the longest way crosses {} cables, and at most {} are simulated",
                            longest_way, Route::kMaxHops - kEndHops),
                suggested_dimensions(table.nodes()));
    return nullptr;
  }
  return std::make_unique<Torus>(spec, table, links);
}

}  // namespace rehearse
