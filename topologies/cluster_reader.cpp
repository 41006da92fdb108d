#include "topologies/cluster_reader.h"

#include "plan/digest.h"

namespace rehearse {
namespace {

constexpr double kMostNodes = 1 << 20;
constexpr double kMostGpusInNode = 4096;
/// Routes of a custom graph are searched from every GPU: these keep that below a second.
constexpr double kMostVertices = 2048;
constexpr double kMostEdges = 16384;
constexpr double kMostPorts = 1 << 16;
constexpr Range kBytes{0, 1e18};
/// A bandwidth of some hundred bytes a second is a number whose unit was forgotten.
constexpr Range kRate{1e6, 1e18};
constexpr Range kRateOrNone{1e6, 1e18, true};
constexpr Range kSpeed{0, 1e21};
constexpr Range kLatency{0, 10};

template <class Spec>
std::vector<std::string> ids_of(const std::vector<Spec>& catalogue) {
  std::vector<std::string> ids;
  for (const Spec& spec : catalogue) ids.push_back(spec.id);
  return ids;
}

void check_gpu(const GpuSpec& gpu, ObjectCheck& check) {
  if (gpu.fp32_flops == 0 && gpu.bf16_flops == 0 && gpu.fp16_flops == 0 && gpu.fp8_flops == 0)
    check.problem("bf16_rate", "the GPU has no computing rate",
                  "give fp32_rate, bf16_rate, fp16_rate or fp8_rate");
}

const FieldTable<NodeGroup>& group_table() {
  static const FieldTable<NodeGroup> table =
      FieldTable<NodeGroup>("group", "Equal nodes of a cluster")
          .object("node", &NodeGroup::node, node_table(), "what each of them is")
          .required()
          .integer("nodes", &NodeGroup::count, {1, kMostNodes}, "how many")
          .number("speed", &NodeGroup::speed, {1e-6, 1e6},
                  "computing rate of its GPUs relative to their data sheet (stragglers)");
  return table;
}

const FieldTable<CustomVertex>& vertex_table() {
  static const FieldTable<CustomVertex> table =
      FieldTable<CustomVertex>("vertex", "A GPU or switch of a custom graph")
          .text("name", &CustomVertex::name, "what edges call it")
          .required()
          .boolean("gpu", &CustomVertex::is_gpu, "whether it is a GPU")
          .integer("node", &CustomVertex::node, {0, kMostNodes},
                   "the node that a GPU belongs to, from 0");
  return table;
}

const FieldTable<CustomEdge>& edge_table() {
  static const FieldTable<CustomEdge> table =
      FieldTable<CustomEdge>("edge", "A cable of a custom graph")
          .text("from", &CustomEdge::from, "name of a vertex")
          .required()
          .text("to", &CustomEdge::to, "name of a vertex")
          .required()
          .quantity("bandwidth", &CustomEdge::bandwidth_bytes_per_s, Dimension::BytesPerSecond,
                    kRate, "each direction")
          .required()
          .quantity("latency", &CustomEdge::latency_s, Dimension::Seconds, kLatency,
                    "of its whole length")
          .boolean("duplex", &CustomEdge::duplex, "false: only from → to");
  return table;
}

/// Removes what does not change how a cluster behaves, so that a better source for a figure does
/// not make it another cluster. The names of a custom graph's vertices stay: edges use them.
void drop_remarks(JsonValue& value) {
  const bool vertex = value.find("gpu") && value.find("gpu")->kind == JsonKind::Boolean;
  std::erase_if(value.members, [vertex](const JsonMember& member) {
    return member.key == "source" || member.key == "price" || member.key == "id" ||
           (member.key == "name" && !vertex);
  });
  for (JsonMember& member : value.members) drop_remarks(member.value);
  for (JsonValue& item : value.items) drop_remarks(item);
}

void check_cluster_keys(ObjectCheck& check) {
  if (check.has("node") && check.has("groups"))
    check.problem("groups", "the cluster is given both as node and as groups",
                  "move the node into a group of its own");
  if (!check.has("node") && !check.has("groups"))
    check.problem("node", "the cluster has neither a node nor groups",
                  "write \"node\": \"dgx-h100\", or \"groups\": [{\"node\": …, \"nodes\": …}]");
  if (check.has("groups"))
    for (const char* key : {"nodes", "speed"})
      if (check.has(key))
        check.problem(key, "groups say this each for itself", "move it into the groups");
}

void check_cluster(const ClusterFile& file, ObjectCheck& check) {
  const bool custom = file.fabric.kind == FabricKind::Custom;
  for (const char* key : {"vertices", "edges"})
    if (check.has(key) != custom)
      check.problem(key,
                    custom ? std::string("a custom fabric needs ") + key
                           : std::string(key) + " belong to a custom fabric only",
                    custom ? "" : "set /cluster/fabric/kind to \"custom\"");
}

}  // namespace

const Names<FabricKind>& fabric_kind_names() {
  static const Names<FabricKind> names = {{"single-switch", FabricKind::SingleSwitch},
                                          {"leaf-spine", FabricKind::LeafSpine},
                                          {"fat-tree", FabricKind::FatTree},
                                          {"rail-optimized", FabricKind::RailOptimized},
                                          {"torus", FabricKind::Torus},
                                          {"dragonfly", FabricKind::Dragonfly},
                                          {"custom", FabricKind::Custom}};
  return names;
}

const Names<Spreading>& spreading_names() {
  static const Names<Spreading> names = {{"adaptive", Spreading::Adaptive},
                                         {"ecmp", Spreading::Ecmp}};
  return names;
}

const FieldTable<GpuSpec>& gpu_table() {
  static const FieldTable<GpuSpec> table =
      FieldTable<GpuSpec>("gpu",
                          "Data-sheet facts of one GPU; rates are dense, bandwidths are "
                          "per direction, 0 means the part does not have it")
          .catalogue("GPU", find_gpu, [] { return ids_of(gpu_catalogue()); })
          .text("id", &GpuSpec::id, "short name")
          .text("name", &GpuSpec::name, "full name")
          .quantity("memory", &GpuSpec::memory_bytes, Dimension::Bytes, {1, 1e18}, "its memory")
          .required()
          .quantity("memory_bandwidth", &GpuSpec::memory_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, kRate, "of its memory")
          .required()
          .quantity("l2_cache", &GpuSpec::l2_bytes, Dimension::Bytes, kBytes,
                    "size of its L2 cache")
          .quantity("fp32_rate", &GpuSpec::fp32_flops, Dimension::FlopsPerSecond, kSpeed,
                    "outside tensor cores")
          .quantity("bf16_rate", &GpuSpec::bf16_flops, Dimension::FlopsPerSecond, kSpeed,
                    "tensor cores, fp32 accumulation")
          .quantity("fp16_rate", &GpuSpec::fp16_flops, Dimension::FlopsPerSecond, kSpeed,
                    "tensor cores, fp32 accumulation")
          .quantity("fp8_rate", &GpuSpec::fp8_flops, Dimension::FlopsPerSecond, kSpeed,
                    "tensor cores, fp32 accumulation")
          .quantity("nvlink_bandwidth", &GpuSpec::nvlink_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, kRateOrNone, "of all its NVLinks, one direction")
          .quantity("pcie_bandwidth", &GpuSpec::pcie_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, kRateOrNone, "of its host link, one direction")
          .integer("streaming_multiprocessors", &GpuSpec::streaming_multiprocessors, {0, 1e6},
                   "how many it has")
          .quantity("boost_clock", &GpuSpec::boost_clock_hz, Dimension::Hertz, {0, 1e12},
                    "highest clock")
          .quantity("power", &GpuSpec::power_w, Dimension::Watts, {0, 1e6}, "board limit")
          .integer("compute_capability", &GpuSpec::compute_capability, {0, 1000},
                   "10 · major + minor: 80, 90, 100")
          .quantity("price", &GpuSpec::price_usd_per_hour, Dimension::UsdPerHour, {0, 1e6},
                    "typical rental; 0: not stated")
          .text("source", &GpuSpec::source, "where the figures come from")
          .check(check_gpu);
  return table;
}

const FieldTable<NodeSpec>& node_table() {
  static const FieldTable<NodeSpec> table =
      FieldTable<NodeSpec>("node", "A server, or a rack whose GPUs share one NVLink domain")
          .catalogue("node", find_node, [] { return ids_of(node_catalogue()); })
          .text("id", &NodeSpec::id, "short name")
          .text("name", &NodeSpec::name, "full name")
          .object("gpu", &NodeSpec::gpu, gpu_table(), "what its GPUs are")
          .required()
          .integer("gpus", &NodeSpec::gpus, {1, kMostGpusInNode}, "GPUs in it")
          .boolean("nvswitch", &NodeSpec::nvswitch,
                   "GPUs reach each other over NVSwitch; otherwise over PCIe and the host")
          .integer("nics", &NodeSpec::nics, {0, kMostGpusInNode},
                   "network cards, shared by the GPUs in order")
          .quantity("nic_bandwidth", &NodeSpec::nic_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, kRateOrNone, "of each network card, one direction")
          .quantity("nic_latency", &NodeSpec::nic_latency_s, Dimension::Seconds, kLatency,
                    "of one message through card and driver, one end")
          .number("nic_goodput", &NodeSpec::nic_goodput, {0.01, 1},
                  "share of nic_bandwidth that payload reaches one way")
          .omit_default()
          .default_note("0.96")
          .number("nic_duplex", &NodeSpec::nic_duplex, {0.5, 1},
                  "share of its rate that each way keeps while both are busy: 1 full duplex, "
                  "0.5 half")
          .omit_default()
          .default_note("1")
          .quantity("host_memory", &NodeSpec::host_memory_bytes, Dimension::Bytes, {0, 1e15},
                    "of its CPUs, for what a plan offloads; 0: not stated")
          .quantity("host_memory_bandwidth", &NodeSpec::host_memory_bandwidth_bytes_per_s,
                    Dimension::BytesPerSecond, kRateOrNone,
                    "nominal, all channels; 0: two sockets of DDR4-3200")
          .quantity("power", &NodeSpec::power_w, Dimension::Watts, {0, 1e9},
                    "whole node under load; 0: not stated")
          .text("source", &NodeSpec::source, "where the figures come from");
  return table;
}

const FieldTable<FabricSpec>& fabric_table() {
  static const FieldTable<FabricSpec> table =
      FieldTable<FabricSpec>("fabric", "The network between nodes")
          .choice("kind", &FabricSpec::kind, fabric_kind_names(), "its shape")
          .number("oversubscription", &FabricSpec::oversubscription, {1e-3, 1e3},
                  "capacity towards hosts over capacity upwards, at the leaves")
          .integer("switch_ports", &FabricSpec::switch_ports, {2, kMostPorts},
                   "ports of a leaf or spine at the network cards' rate")
          .quantity("hop_latency", &FabricSpec::hop_latency_s, Dimension::Seconds, kLatency,
                    "of one switch with its cable")
          .default_note(format_seconds(kDefaultHopLatency_s))
          .choice("spreading", &FabricSpec::spreading, spreading_names(),
                  "how parallel cables share traffic: evenly, or one path for each pair")
          .integers("torus_dimensions", &FabricSpec::torus_dimensions, {1, kMostNodes}, {0, 3},
                    "nodes along each dimension of a torus; their product is the number of nodes")
          .integer("dragonfly_group_switches", &FabricSpec::dragonfly_group_switches,
                   {0, kMostPorts}, "switches in a group of a dragonfly")
          .default_note("from switch_ports")
          .integer("nodes_per_rail_group", &FabricSpec::nodes_per_rail_group, {0, kMostNodes},
                   "rail-optimized: nodes under one set of leaves")
          .default_note("as many as the leaves' ports allow");
  return table;
}

const FieldTable<ClusterFile>& cluster_table() {
  static const FieldTable<ClusterFile> table =
      FieldTable<ClusterFile>("cluster", "The machine: equal nodes, or groups of them, on a fabric")
          .object("node", &ClusterFile::node, node_table(), "what each node is")
          .default_note("see groups")
          .integer("nodes", &ClusterFile::nodes, {1, kMostNodes}, "how many nodes")
          .number("speed", &ClusterFile::speed, {1e-6, 1e6},
                  "computing rate of the GPUs relative to their data sheet")
          .objects("groups", &ClusterFile::groups, group_table(), {1, kMostNodes},
                   "groups of equal nodes, in place of node and nodes")
          .object("fabric", &ClusterFile::fabric, fabric_table(), "the network between nodes")
          .objects("vertices", &ClusterFile::vertices, vertex_table(), {1, kMostVertices},
                   "GPUs and switches of a custom fabric")
          .objects("edges", &ClusterFile::edges, edge_table(), {1, kMostEdges},
                   "cables of a custom fabric")
          .shape(check_cluster_keys)
          .check(check_cluster);
  return table;
}

ClusterSpec cluster_spec(const ClusterFile& file) {
  ClusterSpec spec{file.groups, file.fabric, file.vertices, file.edges};
  if (spec.groups.empty()) spec.groups.push_back({file.node, file.nodes, file.speed});
  return spec;
}

JsonValue cluster_json(const ClusterSpec& spec) {
  JsonValue groups = JsonValue::list(), vertices = JsonValue::list(), edges = JsonValue::list();
  for (const NodeGroup& group : spec.groups) groups.items.push_back(group_table().to_json(group));
  for (const CustomVertex& vertex : spec.custom_vertices)
    vertices.items.push_back(vertex_table().to_json(vertex));
  for (const CustomEdge& edge : spec.custom_edges)
    edges.items.push_back(edge_table().to_json(edge));
  JsonValue cluster = JsonValue::object();
  cluster.add("groups", std::move(groups));
  cluster.add("fabric", fabric_table().to_json(spec.fabric));
  if (spec.fabric.kind == FabricKind::Custom) {
    cluster.add("vertices", std::move(vertices));
    cluster.add("edges", std::move(edges));
  }
  return cluster;
}

std::string cluster_digest(const ClusterSpec& spec) {
  JsonValue cluster = cluster_json(spec);
  drop_remarks(cluster);
  return digest_text(to_text(cluster, JsonLayout::Compact));
}

}  // namespace rehearse
