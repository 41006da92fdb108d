#include <fmt/format.h>

#include "plan/ensure.h"
#include "topologies/cluster_impl.h"
#include "topologies/graph.h"

namespace rehearse {
namespace {

/// GPUs and the NVSwitch or host of each node, joined by the local links.
void append_nodes(const Cluster::Impl& impl, GraphParts& parts) {
  for (std::int32_t gpu = 0; gpu < impl.gpu_count(); ++gpu)
    parts.vertices.push_back({.kind = VertexKind::Gpu,
                              .index = gpu,
                              .node = impl.node_of_gpu[static_cast<std::size_t>(gpu)]});
  for (std::int32_t node = 0; node < impl.node_count(); ++node)
    parts.vertices.push_back(
        {.kind = impl.group(node).node.nvswitch ? VertexKind::NvSwitch : VertexKind::Host,
         .index = node,
         .node = node});
  for (std::int32_t gpu = 0; gpu < impl.gpu_count(); ++gpu) {
    const std::int32_t hub = impl.gpu_count() + impl.node_of_gpu[static_cast<std::size_t>(gpu)];
    append_edge(parts, gpu, hub, impl.local_link(gpu), impl.links);
    append_edge(parts, hub, gpu, impl.local_link(gpu) + 1, impl.links);
  }
}

/// NICs between their GPUs (or their host) and their switch.
void append_nics(const Cluster::Impl& impl, std::int32_t first_switch, GraphParts& parts) {
  const std::int32_t first_hub = impl.gpu_count();
  const std::int32_t first_nic = first_hub + impl.node_count();
  const auto append_pcie = [&](std::int32_t a, std::int32_t b, double bandwidth) {
    parts.edges.push_back({a, b, LinkId{-1}, bandwidth, 0});
    parts.edges.push_back({b, a, LinkId{-1}, bandwidth, 0});
  };
  for (std::size_t p = 0; p < impl.table.ports.size(); ++p) {
    const Port& port = impl.table.ports[p];
    const std::int32_t nic = first_nic + static_cast<std::int32_t>(p);
    const std::int32_t at = first_switch + impl.fabric->switch_of(static_cast<std::int32_t>(p));
    append_edge(parts, nic, at, impl.nic_link(static_cast<std::int32_t>(p)), impl.links);
    append_edge(parts, at, nic, impl.nic_link(static_cast<std::int32_t>(p)) + 1, impl.links);
    if (!impl.group(port.node).node.nvswitch)
      append_pcie(first_hub + port.node, nic, port.bandwidth_bytes_per_s);
  }
  for (std::int32_t gpu = 0; gpu < impl.gpu_count(); ++gpu) {
    const std::int32_t port = impl.port_of_gpu[static_cast<std::size_t>(gpu)];
    const NodeSpec& node = impl.group(impl.node_of_gpu[static_cast<std::size_t>(gpu)]).node;
    if (!node.nvswitch) continue;
    const double slot = node.gpu.pcie_bandwidth_bytes_per_s;
    append_pcie(
        gpu, first_nic + port,
        slot > 0 ? slot : impl.table.ports[static_cast<std::size_t>(port)].bandwidth_bytes_per_s);
  }
}

ClusterGraph graph_of_custom(const Cluster::Impl& impl) {
  GraphParts parts;
  for (std::int32_t v = 0; v < impl.custom->vertex_count(); ++v) {
    const std::int32_t gpu = impl.custom->gpu_of_vertex[static_cast<std::size_t>(v)];
    parts.vertices.push_back(
        {.kind = gpu < 0 ? VertexKind::Custom : VertexKind::Gpu,
         .index = gpu < 0 ? v : gpu,
         .node = gpu < 0 ? -1 : impl.node_of_gpu[static_cast<std::size_t>(gpu)]});
  }
  for (std::size_t link = 0; link < impl.links.size(); ++link)
    append_edge(parts, impl.custom->from[link], impl.custom->to[link],
                static_cast<std::int32_t>(link), impl.links);
  return ClusterGraph(std::move(parts.vertices), std::move(parts.edges));
}

}  // namespace

ClusterGraph cluster_graph(const Cluster::Impl& impl) {
  if (impl.custom) return graph_of_custom(impl);
  GraphParts parts;
  append_nodes(impl, parts);
  if (impl.fabric) {
    for (std::size_t p = 0; p < impl.table.ports.size(); ++p)
      parts.vertices.push_back({.kind = VertexKind::Nic,
                                .index = static_cast<std::int32_t>(p),
                                .node = impl.table.ports[p].node});
    const auto first_switch = static_cast<std::int32_t>(parts.vertices.size());
    append_nics(impl, first_switch, parts);
    impl.fabric->append_graph(impl.links, parts);
  }
  return ClusterGraph(std::move(parts.vertices), std::move(parts.edges));
}

ClusterGraph cluster_graph(const Cluster& cluster) { return cluster_graph(cluster.impl()); }

ClusterGraph fabric_graph(const Cluster::Impl& impl) {
  GraphParts parts;
  impl.fabric->append_graph(impl.links, parts);
  return ClusterGraph(std::move(parts.vertices), std::move(parts.edges));
}

std::string vertex_name(const Cluster& cluster, const GraphVertex& vertex) {
  const auto numbered = [&](const char* kind) {
    return vertex.count == 1 ? fmt::format("{} {}", kind, vertex.index)
                             : fmt::format("{} {} ({} switches)", kind, vertex.index, vertex.count);
  };
  const CustomGraph* custom = cluster.impl().custom.get();
  switch (vertex.kind) {
    case VertexKind::Gpu:
      if (custom)
        return custom->names[static_cast<std::size_t>(
            custom->vertex_of_gpu[static_cast<std::size_t>(vertex.index)])];
      return numbered("gpu");
    case VertexKind::NvSwitch:
      return numbered("nvswitch");
    case VertexKind::Host:
      return numbered("host");
    case VertexKind::Nic:
      return numbered("nic");
    case VertexKind::Leaf:
      return numbered("leaf");
    case VertexKind::Spine:
      return numbered("spine");
    case VertexKind::Core:
      return numbered("core");
    case VertexKind::Router:
      return numbered("router");
    case VertexKind::Switch:
      return numbered("switch");
    case VertexKind::Custom:
      return custom->names[static_cast<std::size_t>(vertex.index)];
  }
  ensure(false, "every kind of vertex has a name");
  return "";
}

}  // namespace rehearse
