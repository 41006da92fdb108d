#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "app/commands.h"
#include "app/number_format.h"
#include "app/output.h"
#include "app/overview.h"
#include "app/scenario.h"
#include "app/text_table.h"
#include "plan/model_catalogue.h"
#include "plan/units.h"
#include "topologies/hardware.h"

namespace rehearse {
namespace {

std::string tera(double flops) { return flops > 0 ? fmt::format("{:.0f}", flops * 1e-12) : "-"; }
std::string giga(double bytes) { return bytes > 0 ? fmt::format("{:.0f}", bytes * 1e-9) : "-"; }

TextTable models_table() {
  TextTable table({{.title = "model", .align = Align::Left},
                   {.title = "parameters"},
                   {.title = "layers"},
                   {.title = "hidden"},
                   {.title = "heads"},
                   {.title = "kv heads"},
                   {.title = "ffn"},
                   {.title = "vocabulary"},
                   {.title = "sequence", .unit = "tokens"}});
  for (const Model& model : model_catalogue())
    table.add_row({model.name, format_count(static_cast<double>(count_parameters(model).total())),
                   std::to_string(model.layers), std::to_string(model.hidden),
                   std::to_string(model.heads), std::to_string(model.kv_heads),
                   std::to_string(model.ffn), std::to_string(model.vocab),
                   std::to_string(model.max_seq_len)});
  return table;
}

TextTable gpus_table() {
  TextTable table({{.title = "gpu", .align = Align::Left},
                   {.title = "memory", .unit = "GB"},
                   {.title = "bandwidth", .unit = "GB/s"},
                   {.title = "bf16", .unit = "TFLOP/s"},
                   {.title = "fp16", .unit = "TFLOP/s"},
                   {.title = "fp8", .unit = "TFLOP/s"},
                   {.title = "NVLink", .unit = "GB/s"},
                   {.title = "power", .unit = "W"},
                   {.title = "source", .align = Align::Left, .droppable = 1}});
  for (const GpuSpec& gpu : gpu_catalogue())
    table.add_row({gpu.id, giga(gpu.memory_bytes), giga(gpu.memory_bandwidth_bytes_per_s),
                   tera(gpu.bf16_flops), tera(gpu.fp16_flops), tera(gpu.fp8_flops),
                   giga(gpu.nvlink_bandwidth_bytes_per_s), fmt::format("{:.0f}", gpu.power_w),
                   gpu.source});
  return table;
}

TextTable nodes_table() {
  TextTable table({{.title = "node", .align = Align::Left},
                   {.title = "gpu", .align = Align::Left},
                   {.title = "gpus"},
                   {.title = "inside", .align = Align::Left},
                   {.title = "NICs"},
                   {.title = "each", .unit = "Gbit/s"},
                   {.title = "source", .align = Align::Left, .droppable = 1}});
  for (const NodeSpec& node : node_catalogue())
    table.add_row({node.id, node.gpu.id, std::to_string(node.gpus),
                   node.nvswitch ? "NVSwitch" : "PCIe", std::to_string(node.nics),
                   fmt::format("{:.0f}", node.nic_bandwidth_bytes_per_s * 8e-9), node.source});
  return table;
}

struct Named {
  const char* name;
  const char* is;
};

TextTable named_table(const char* title, const std::vector<Named>& rows) {
  TextTable table({{.title = title, .align = Align::Left}, {.title = "is", .align = Align::Left}});
  for (const Named& row : rows) table.add_row({row.name, row.is});
  return table;
}

TextTable topologies_table() {
  return named_table(
      "fabric", {{"single-switch", "every NIC on one non-blocking switch"},
                 {"leaf-spine", "all NICs of a node on one leaf, leaves on spines"},
                 {"fat-tree", "three levels: leaf, spine of a pod, core"},
                 {"rail-optimized", "NIC i of every node of a group on leaf (rail) i"},
                 {"torus", "nodes in a 1- to 3-dimensional torus, dimension-order routes"},
                 {"dragonfly", "groups of switches, all-to-all inside and between, minimal routes"},
                 {"custom", "vertices and edges given in the scenario"}});
}

TextTable strategies_table() {
  return named_table(
      "strategy",
      {{"data parallel", "\"dp\": replicas that reduce gradients in overlapped buckets"},
       {"ZeRO-1", "\"zero\": 1: optimizer state sharded over data ranks"},
       {"ZeRO-2", "\"zero\": 2: gradients too, reduced after every micro-batch"},
       {"ZeRO-3, FSDP", "\"zero\": 3: weights too, gathered layer by layer with \"prefetch\""},
       {"HSDP", "\"zero\": 3 with \"shard\": shards inside, replicas between"},
       {"gradient accumulation", "\"micro_batch\" smaller than a replica's share of the batch"},
       {"tensor parallel", "\"tp\": matrices split by columns, then rows"},
       {"tensor parallel, 2-D", "\"tensor_rows\": matrices cut by blocks over rows and columns"},
       {"sequence parallel", "\"sequence_parallel\": norms and dropout split over tensor ranks"},
       {"vocabulary parallel",
        "\"vocabulary_parallel\": embedding and head split over tensor ranks"},
       {"ring attention", "\"cp\", \"context\": \"ring\": tokens split; keys and values go round"},
       {"all-to-all attention", "\"context\": \"all-to-all\": tokens turned into heads and back"},
       {"causal balance", "\"context_balanced\": context ranks hold early and late pieces"},
       {"expert parallel", "\"ep\": a mixture's experts spread inside the data ranks"},
       {"expert tensor ranks", "\"experts\": {\"tp\": …}: each expert cut over tensor ranks"},
       {"node-limited experts",
        "\"experts\": {\"node_limit\": …}: tokens cross to few nodes, once each"},
       {"pipeline, GPipe", "\"pp\", \"schedule\": \"gpipe\": all forwards, then all backwards"},
       {"pipeline, 1F1B", "\"schedule\": \"1f1b\": one forward, one backward"},
       {"pipeline, interleaved", "\"virtual_stages\" > 1: several chunks of layers a stage"},
       {"pipeline, ZB-H1", "\"schedule\": \"zb-h1\": weight gradients apart, memory of 1F1B"},
       {"pipeline, ZB-H2", "\"schedule\": \"zb-h2\": twice the micro-batches in flight"},
       {"pipeline, ZB-V", "\"schedule\": \"zb-v\": two chunks a stage, down and back"},
       {"pipeline, DualPipe", "\"schedule\": \"dualpipe\": from both ends, parameters twice"},
       {"pipeline, explicit", "\"actions\": the order of work of each stage, spelt out"},
       {"hidden transfers", "\"overlap\": which communication runs beside the work, or waits"},
       {"balanced layers", "\"layer_split\": \"balanced\": the slowest stage as fast as it can be"},
       {"layer-wise", "\"schedule\": \"layer-wise\": one stage active at a time"},
       {"pieces by placement", "\"stage_placement\": range, round-robin or random over stages"},
       {"batch by speed", "\"batch_split\": \"by-speed\": more micro-batches for faster replicas"},
       {"rebalancing", "\"rebalance_every\": shares by measured speed after so many steps"},
       {"data partition", "\"partition\": range, round-robin or random, where lengths differ"},
       {"hybrid", "any product of these, ranks numbered by \"rank_order\""},
       {"parameter servers", "\"updates\": servers hold the weights; replicas push and pull"},
       {"asynchronous updates", "\"synchrony\": \"asynchronous\": servers apply each push at once"},
       {"bounded staleness", "\"synchrony\": \"bounded-stale\": at most \"staleness\" steps ahead"},
       {"local SGD", "\"updates\": replicas average their weights every \"period\" steps"},
       {"weighted averages", "\"weighting\": by samples, or by a \"reliability\" of each replica"},
       {"recompute", "\"recompute\": none, selective (attention) or full"},
       {"recompute by name", "\"recompute_operators\", \"recompute_layers\": what, and where"},
       {"offload", "\"offload\": optimizer, gradients, activations in host memory"},
       {"fewer bits",
        "\"activation_store\", \"moment_precision\": what waits, and Adam's moments, in 8 to 16"},
       {"expert capacity", "\"experts\": {\"capacity\": …, \"pad\"}: tokens beyond it are dropped"},
       {"fp8 recipes", "\"fp8\": which products, how scaled, what stays in 16 bits"},
       {"precision", "\"precision\": fp32, bf16, fp16 or fp8"}});
}

/// The nearest folder of scenarios: here, or beside the source tree the program was built in.
std::filesystem::path scenario_folder() {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  for (const std::filesystem::path& folder :
       {std::filesystem::path("scenarios"), program.parent_path() / "../../scenarios",
        program.parent_path() / "../share/rehearse/scenarios"})
    if (std::filesystem::is_directory(folder, ignored)) return folder.lexically_normal();
  return {};
}

TextTable scenarios_table() {
  TextTable table({{.title = "file", .align = Align::Left},
                   {.title = "plans"},
                   {.title = "variants"},
                   {.title = "question", .align = Align::Left, .least_width = 30}});
  const std::filesystem::path folder = scenario_folder();
  if (folder.empty()) {
    note("no folder \"scenarios\" here");
    return table;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const std::filesystem::path& path : paths) {
    Problems problems;
    const auto file = read_scenario(read_whole(path.string()), path, problems);
    if (!file) {
      table.add_sentence_row(path.string(), "has problems: rehearse check " + path.string(),
                             Tone::Bad);
      continue;
    }
    const Scenario& scenario = file->variants[0].scenario;
    table.add_row({path.string(), std::to_string(scenario.plans.size()),
                   std::to_string(file->variants.size()), scenario.description});
  }
  return table;
}

TextTable what_table() {
  TextTable table({{.title = "rehearse list …", .align = Align::Left}});
  for (const std::string& name : listable()) table.add_row({name});
  return table;
}

TextTable table_of(const std::string& what) {
  if (what == "models") return models_table();
  if (what == "gpus") return gpus_table();
  if (what == "nodes") return nodes_table();
  if (what == "topologies") return topologies_table();
  if (what == "strategies") return strategies_table();
  if (what == "scenarios") return scenarios_table();
  return what_table();
}

}  // namespace

ExitCode list_command(const ListOptions& options) {
  write_result(
      "-",
      table_of(options.what).text(options.wide ? 0 : 100, stdout_takes_color(options.color), 0),
      false);
  return ExitCode::Done;
}

}  // namespace rehearse
