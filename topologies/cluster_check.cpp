#include <fmt/format.h>

#include <cmath>

#include "topologies/cluster_impl.h"

namespace rehearse {
namespace {

constexpr std::int64_t kMostGpus = 1 << 20;

bool positive(double value) { return std::isfinite(value) && value > 0; }
bool not_negative(double value) { return std::isfinite(value) && value >= 0; }

void require(Problems& problems, bool condition, const std::string& pointer,
             const std::string& message, const std::string& hint = {}) {
  if (!condition) add_problem(problems, pointer, message, hint);
}

void check_node(const NodeSpec& node, const std::string& at, bool needs_nics, bool local_ways,
                Problems& problems) {
  require(problems, node.gpus >= 1, at + "/gpus", "a node has at least one GPU");
  require(problems, node.nics >= 0, at + "/nics", "the number of NICs cannot be negative");
  if (needs_nics)
    require(problems, node.nics != 0, at + "/nics",
            "nodes of a cluster need NICs to reach each other");
  if (node.nics > 0)
    require(problems, positive(node.nic_bandwidth_bytes_per_s), at + "/nic_bandwidth",
            "a NIC needs a bandwidth above zero", "for instance \"400 Gbit/s\"");
  require(problems, not_negative(node.nic_latency_s), at + "/nic_latency",
          "a latency is a finite time of zero or more");
  require(problems, node.nic_goodput > 0 && node.nic_goodput <= 1, at + "/nic_goodput",
          "payload reaches a share of a NIC's rate, above zero and at most 1");
  require(problems, node.nic_duplex >= 0.5 && node.nic_duplex <= 1, at + "/nic_duplex",
          "a NIC keeps between a half and all of its rate while both ways are busy",
          "1 is full duplex, 0.5 half");
  if (!local_ways) {
    require(problems, node.nic_duplex == 1, at + "/nic_duplex", "a custom fabric has no NICs",
            "give its cables the rates that they reach");
    return;
  }
  if (node.nvswitch && node.gpus > 1)
    require(problems, positive(node.gpu.nvlink_bandwidth_bytes_per_s), at + "/nvswitch",
            fmt::format("the GPU {} has no NVLink that an NVSwitch could join", node.gpu.id),
            "set nvswitch to false: the GPUs then talk over PCIe");
  if (!node.nvswitch)
    require(problems, positive(node.gpu.pcie_bandwidth_bytes_per_s), at + "/gpu/pcie_bandwidth",
            "without NVSwitch, GPUs talk over PCIe, which needs a bandwidth above zero");
}

void check_groups(const ClusterSpec& spec, Problems& problems) {
  const bool single = spec.groups.size() == 1;
  const bool custom = spec.fabric.kind == FabricKind::Custom;
  std::int64_t nodes = 0, gpus = 0;
  for (const NodeGroup& group : spec.groups) {
    nodes += std::max(0, group.count);
    gpus += std::int64_t{std::max(0, group.count)} * std::max(0, group.node.gpus);
  }
  for (std::size_t g = 0; g < spec.groups.size(); ++g) {
    const NodeGroup& group = spec.groups[g];
    const std::string at = single ? "" : fmt::format("/groups/{}", g);
    require(problems, group.count >= 1, at + "/nodes", "a cluster has at least one node");
    require(problems, positive(group.speed), at + "/speed", "a speed is a finite factor above zero",
            "1 is the speed of the data sheet");
    check_node(group.node, at + "/node", nodes > 1 && !custom, !custom, problems);
  }
  require(problems, !spec.groups.empty(), single ? "/nodes" : "/groups",
          "the cluster has no nodes");
  require(problems, gpus <= kMostGpus, single ? "/nodes" : "/groups",
          fmt::format("the cluster has {} GPUs, and at most {} are simulated", gpus, kMostGpus));
}

bool has_leaves(FabricKind kind) {
  return kind == FabricKind::LeafSpine || kind == FabricKind::FatTree ||
         kind == FabricKind::RailOptimized;
}

void check_fabric(const FabricSpec& fabric, Problems& problems) {
  const bool sane = positive(fabric.oversubscription);
  require(problems, sane, "/fabric/oversubscription",
          "oversubscription is a finite ratio above zero", "1 is a non-blocking fabric");
  if (sane && !has_leaves(fabric.kind))
    require(problems, fabric.oversubscription == 1, "/fabric/oversubscription",
            "only fabrics with leaf switches can be oversubscribed",
            "use leaf-spine, fat-tree or rail-optimized, or leave it at 1");
  require(problems, not_negative(fabric.hop_latency_s), "/fabric/hop_latency",
          "a latency is a finite time of zero or more");
  require(problems, fabric.nodes_per_rail_group >= 0, "/fabric/nodes_per_rail_group",
          "a number of nodes cannot be negative");
  require(problems, fabric.dragonfly_group_switches >= 0, "/fabric/dragonfly_group_switches",
          "a number of switches cannot be negative");
  constexpr int kMostPorts = 1 << 16;
  require(problems, fabric.switch_ports >= 2 && fabric.switch_ports <= kMostPorts,
          "/fabric/switch_ports", fmt::format("a switch has 2 to {} ports", kMostPorts));
}

}  // namespace

void check_cluster_spec(const ClusterSpec& spec, Problems& problems) {
  check_groups(spec, problems);
  check_fabric(spec.fabric, problems);
}

}  // namespace rehearse
