#include "topologies/cluster.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/ensure.h"
#include "topologies/cluster_impl.h"

namespace rehearse {
namespace {

// GPU to NVSwitch or back. The two make 0.94 µs, the latency of one NVSwitch hop in ASTRA-sim's
// network description validated on HGX H100.
constexpr double kNvlinkLatency_s = 0.47e-6;
// GPU to host bridge or back; two make the 1.2 µs of a small peer-to-peer write. Assumed.
constexpr double kPcieLatency_s = 0.6e-6;

void number_nodes(Cluster::Impl& impl) {
  impl.first_gpu_of_node.push_back(0);
  for (std::size_t g = 0; g < impl.spec.groups.size(); ++g)
    for (int n = 0; n < impl.spec.groups[g].count; ++n) {
      impl.node_of_gpu.insert(impl.node_of_gpu.end(),
                              static_cast<std::size_t>(impl.spec.groups[g].node.gpus),
                              impl.node_count());
      impl.group_of_node.push_back(static_cast<std::int32_t>(g));
      impl.first_gpu_of_node.push_back(impl.gpu_count());
    }
}

/// Ports of one node and the GPUs that use them: NIC i·nics/gpus of GPU i, or several NICs a GPU.
void plug_node(Cluster::Impl& impl, std::int32_t node) {
  const NodeSpec& spec = impl.group(node).node;
  const auto first = static_cast<std::int32_t>(impl.table.ports.size());
  const int ports = std::min(spec.nics, spec.gpus);
  for (int i = 0; i < ports; ++i) {
    const int nics = (i + 1) * spec.nics / ports - i * spec.nics / ports;
    impl.table.ports.push_back({.node = node,
                                .rail = i,
                                .nics = nics,
                                .bandwidth_bytes_per_s = nics * spec.nic_bandwidth_bytes_per_s,
                                .latency_s = spec.nic_latency_s});
  }
  impl.table.first_port.push_back(static_cast<std::int32_t>(impl.table.ports.size()));
  std::vector<int> users(static_cast<std::size_t>(ports), 0);
  for (int i = 0; i < spec.gpus; ++i) {
    const int port = i * ports / spec.gpus;
    impl.port_of_gpu.push_back(first + port);
    ++users[static_cast<std::size_t>(port)];
  }
  if (spec.gpu.pcie_bandwidth_bytes_per_s <= 0) return;
  for (int i = 0; i < ports; ++i) {
    double& bandwidth = impl.table.ports[static_cast<std::size_t>(first + i)].bandwidth_bytes_per_s;
    bandwidth = std::min(bandwidth,
                         users[static_cast<std::size_t>(i)] * spec.gpu.pcie_bandwidth_bytes_per_s);
  }
}

void append_local_links(Cluster::Impl& impl) {
  for (std::int32_t gpu = 0; gpu < impl.gpu_count(); ++gpu) {
    const NodeSpec& spec = impl.group(impl.node_of_gpu[static_cast<std::size_t>(gpu)]).node;
    Link link{.kind = spec.nvswitch ? LinkKind::NvlinkUp : LinkKind::PcieUp,
              .bandwidth_bytes_per_s = spec.nvswitch ? spec.gpu.nvlink_bandwidth_bytes_per_s
                                                     : spec.gpu.pcie_bandwidth_bytes_per_s,
              .latency_s = spec.nvswitch ? kNvlinkLatency_s : kPcieLatency_s,
              .owner = gpu};
    impl.links.push_back(link);
    link.kind = spec.nvswitch ? LinkKind::NvlinkDown : LinkKind::PcieDown;
    impl.links.push_back(link);
  }
}

std::unique_ptr<Fabric> make_fabric(Cluster::Impl& impl, Problems& problems) {
  const FabricSpec& spec = impl.spec.fabric;
  switch (spec.kind) {
    case FabricKind::SingleSwitch:
      return make_single_switch(spec);
    case FabricKind::LeafSpine:
    case FabricKind::FatTree:
    case FabricKind::RailOptimized:
      return make_clos(spec, impl.table, impl.links, problems);
    case FabricKind::Torus:
      return make_torus(spec, impl.table, impl.links, problems);
    case FabricKind::Dragonfly:
      return make_dragonfly(spec, impl.table, impl.links, problems);
    case FabricKind::Custom:
      break;
  }
  ensure(false, "custom graphs are built elsewhere");
  return nullptr;
}

/// One capacity that traffic out and in shares; none where each way has its whole rate.
void append_both_ways(Cluster::Impl& impl) {
  for (std::size_t p = 0; p < impl.table.ports.size(); ++p) {
    const Port& port = impl.table.ports[p];
    const double duplex = impl.group(port.node).node.nic_duplex;
    impl.both_ways_of_port.push_back(duplex < 1 ? static_cast<std::int32_t>(impl.links.size())
                                                : -1);
    if (duplex < 1)
      impl.links.push_back({.kind = LinkKind::NicBoth,
                            .bandwidth_bytes_per_s = 2 * duplex * port.bandwidth_bytes_per_s,
                            .latency_s = 0,
                            .payload_share = impl.group(port.node).node.nic_goodput,
                            .owner = static_cast<std::int32_t>(p)});
  }
}

/// NIC links have their places before the fabric's, and their latency from the fabric.
void build_network(Cluster::Impl& impl, Problems& problems) {
  impl.table.first_port.push_back(0);
  for (std::int32_t node = 0; node < impl.node_count(); ++node) plug_node(impl, node);
  const auto first_nic_link = impl.links.size();
  for (std::size_t p = 0; p < impl.table.ports.size(); ++p) {
    const Port& port = impl.table.ports[p];
    Link link{.kind = LinkKind::NicUp,
              .bandwidth_bytes_per_s = port.bandwidth_bytes_per_s,
              .latency_s = port.latency_s,
              .payload_share = impl.group(port.node).node.nic_goodput,
              .owner = static_cast<std::int32_t>(p)};
    impl.links.push_back(link);
    link.kind = LinkKind::NicDown;
    impl.links.push_back(link);
  }
  impl.fabric = make_fabric(impl, problems);
  if (!impl.fabric) return;
  for (std::size_t p = 0; p < impl.table.ports.size(); ++p)
    impl.links[first_nic_link + 2 * p + 1].latency_s += impl.fabric->exit_latency_s();
  append_both_ways(impl);
}

/// SplitMix64 of the pair (Steele et al., OOPSLA 2014): the path that ECMP gives a connection.
std::uint64_t pair_hash(GpuId from, GpuId to) {
  std::uint64_t x =
      (static_cast<std::uint64_t>(from.value) << 32) | static_cast<std::uint64_t>(to.value);
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Cluster::Cluster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Cluster::~Cluster() = default;
Cluster::Cluster(Cluster&&) noexcept = default;
Cluster& Cluster::operator=(Cluster&&) noexcept = default;

Cluster Cluster::build(const ClusterSpec& spec, Problems& problems) {
  const std::size_t before = problems.count();
  check_cluster_spec(spec, problems);
  auto impl = std::make_unique<Impl>();
  impl->spec = spec;
  if (problems.count() > before) return Cluster(std::move(impl));
  if (spec.fabric.kind == FabricKind::Custom) {
    build_custom_graph(*impl, problems);
    return Cluster(std::move(impl));
  }
  number_nodes(*impl);
  append_local_links(*impl);
  // The NICs of a single node lead nowhere.
  if (impl->node_count() > 1) build_network(*impl, problems);
  if (problems.count() > before) {
    impl = std::make_unique<Impl>();
    impl->spec = spec;
  }
  return Cluster(std::move(impl));
}

const ClusterSpec& Cluster::spec() const { return impl_->spec; }
int Cluster::gpu_count() const { return impl_->gpu_count(); }
int Cluster::node_count() const { return impl_->node_count(); }
int Cluster::node_of(GpuId gpu) const {
  return impl_->node_of_gpu[static_cast<std::size_t>(gpu.value)];
}
GpuId Cluster::first_gpu(int node) const {
  return GpuId{impl_->first_gpu_of_node[static_cast<std::size_t>(node)]};
}
int Cluster::gpus_in_node(int node) const {
  return first_gpu(node + 1).value - first_gpu(node).value;
}
const NodeSpec& Cluster::node(int node) const { return impl_->group(node).node; }
const GpuSpec& Cluster::gpu(GpuId gpu) const { return node(node_of(gpu)).gpu; }
double Cluster::speed(GpuId gpu) const { return impl_->group(node_of(gpu)).speed; }
const std::vector<Link>& Cluster::links() const { return impl_->links; }

Route Cluster::route(GpuId from, GpuId to) const {
  ensure(from != to, "a route joins two different GPUs");
  const Impl& impl = *impl_;
  Route route;
  if (impl.custom) {
    impl.custom->append_way(from, to, route);
  } else if (const int a = node_of(from), b = node_of(to); a == b) {
    append(route, impl.local_link(from.value));
    append(route, impl.local_link(to.value) + 1);
  } else {
    const std::int32_t out = impl.port_of_gpu[static_cast<std::size_t>(from.value)];
    const std::int32_t in = impl.port_of_gpu[static_cast<std::size_t>(to.value)];
    const auto append_both = [&](std::int32_t port) {
      const std::int32_t link = impl.both_ways_of_port[static_cast<std::size_t>(port)];
      if (link >= 0) append(route, link);
    };
    if (!node(a).nvswitch) append(route, impl.local_link(from.value));
    append_both(out);
    append(route, impl.nic_link(out));
    impl.fabric->append_way(out, in, pair_hash(from, to), route);
    append(route, impl.nic_link(in) + 1);
    append_both(in);
    if (!node(b).nvswitch) append(route, impl.local_link(to.value) + 1);
  }
  for (int i = 0; i < route.count; ++i)
    route.latency_s += impl.links[static_cast<std::size_t>(route.links[i].value)].latency_s;
  return route;
}

const char* link_kind_name(LinkKind kind) {
  switch (kind) {
    case LinkKind::NvlinkUp:
      return "nvlink-up";
    case LinkKind::NvlinkDown:
      return "nvlink-down";
    case LinkKind::PcieUp:
      return "pcie-up";
    case LinkKind::PcieDown:
      return "pcie-down";
    case LinkKind::NicUp:
      return "nic-up";
    case LinkKind::NicDown:
      return "nic-down";
    case LinkKind::LeafUp:
      return "leaf-up";
    case LinkKind::LeafDown:
      return "leaf-down";
    case LinkKind::SpineUp:
      return "spine-up";
    case LinkKind::SpineDown:
      return "spine-down";
    case LinkKind::Torus:
      return "torus";
    case LinkKind::Group:
      return "group";
    case LinkKind::Global:
      return "global";
    case LinkKind::Custom:
      return "custom";
    case LinkKind::NicBoth:
      return "nic-both-ways";
  }
  ensure(false, "every kind of link has a name");
  return "";
}

std::string Link::name() const {
  switch (kind) {
    case LinkKind::LeafUp:
    case LinkKind::LeafDown:
    case LinkKind::SpineUp:
    case LinkKind::SpineDown:
    case LinkKind::Torus:
    case LinkKind::Group:
    case LinkKind::Global:
      return fmt::format("{} {}.{}", link_kind_name(kind), owner, index);
    default:
      return fmt::format("{} {}", link_kind_name(kind), owner);
  }
}

}  // namespace rehearse
