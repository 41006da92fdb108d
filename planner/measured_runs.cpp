#include "planner/measured_runs.h"

#include <algorithm>
#include <map>
#include <optional>

#include "plan/digest.h"
#include "plan/json_document.h"
#include "plan/noun_tables.h"
#include "planner/run_document.h"
#include "topologies/cluster_reader.h"

namespace rehearse {
namespace {

constexpr double kGibibyte = 1024.0 * 1024 * 1024;
constexpr double kGbit = 1e9 / 8;

/// Of one end of a small message: the figures of the catalogue of nodes; RoCE half of the 2 to 3 µs
/// that one-way GPU-to-GPU writes take, and Omni-Path as InfiniBand; assumed.
double nic_latency_s(NetworkKind kind) {
  switch (kind) {
    case NetworkKind::Infiniband:
    case NetworkKind::OmniPath:
      return 1e-6;
    case NetworkKind::Roce:
      return 1.5e-6;
    case NetworkKind::Efa:
      return 5e-6;
    case NetworkKind::Ethernet:
      return 15e-6;
  }
  return 1e-6;
}

/// Published tables have gaps; a null is a key that is not there.
void drop_nulls(JsonValue& value) {
  std::erase_if(value.members,
                [](const JsonMember& member) { return member.value.kind == JsonKind::Null; });
  for (JsonMember& member : value.members) drop_nulls(member.value);
  for (JsonValue& item : value.items) drop_nulls(item);
}

std::vector<std::string> configurations_of(const JsonValue& document) {
  std::vector<std::string> configurations;
  const JsonValue* runs = document.find("runs");
  if (runs == nullptr) return configurations;
  for (const JsonValue& run : runs->items) {
    std::string text;
    for (const char* key : {"framework", "model", "cluster", "plan", "workload"})
      if (const JsonValue* part = run.find(key)) text += to_text(*part, JsonLayout::Compact) + "\n";
    configurations.push_back(digest_text(text));
  }
  return configurations;
}

// The document as the nouns of this program.

/// Latent attention of DeepSeek-V2 and V3 (their config.json, arXiv 2405.04434 and 2412.19437) and
/// of what follows them; V2-Lite, 2,048 wide, has no latent of queries.
constexpr LatentAttention kDeepseek{
    .kv_rank = 512, .query_rank = 1536, .rope_dim = 64, .value_dim = 128};
constexpr int kDeepseekHead = 128, kLiteHidden = 2048;

LatentAttention latent_of(const ModelText& text) {
  const LatentText& mla = text.mla;
  const bool narrow = text.hidden <= kLiteHidden;
  return {.kv_rank = mla.kv_rank > 0 ? mla.kv_rank : kDeepseek.kv_rank,
          .query_rank = mla.query_rank >= 0 ? mla.query_rank
                        : narrow            ? 0
                                            : kDeepseek.query_rank,
          .rope_dim = mla.rope_dim > 0 ? mla.rope_dim : kDeepseek.rope_dim,
          .value_dim = mla.value_dim > 0 ? mla.value_dim : kDeepseek.value_dim};
}

/// What a table of shapes does not say follows from the activation: GPT-like models of the time of
/// GeLU have LayerNorm, learned positions, biases and a tied head; those with SwiGLU (Llama)
/// RMSNorm and rotary positions, those with squared ReLU (Nemotron-4, arXiv 2402.16819) LayerNorm
/// and rotary positions, both without biases and with a head of their own.
Model model_of(const RunText& run) {
  const ModelText& text = run.model;
  const bool gpt = text.mlp == Activation::Gelu;
  Model model{.name = run.id,
              .layers = text.layers,
              .hidden = text.hidden,
              .heads = text.heads,
              .kv_heads = text.kv_heads,
              .head_dim = text.head_dim,
              .ffn = text.ffn,
              .vocab = text.vocab,
              .max_seq_len = text.seq_len,
              .activation = text.mlp,
              .norm = text.mlp == Activation::Swiglu ? Norm::RmsNorm : Norm::LayerNorm,
              .positions = gpt ? Positions::Learned : Positions::Rotary,
              .tied_embeddings = gpt,
              .linear_bias = gpt};
  if (text.tied_embeddings_given) model.tied_embeddings = text.tied_embeddings;
  if (text.is_mixture)
    model.experts = {.count = text.moe.experts,
                     .active = text.moe.topk,
                     .ffn = text.moe.ffn,
                     .shared_ffn = text.moe.shared * (text.moe.ffn > 0 ? text.moe.ffn : text.ffn),
                     .leading_dense = text.moe.dense_layers};
  if (text.is_latent) {
    model.latent = latent_of(text);
    model.head_dim = text.mla.nope_dim > 0 ? text.mla.nope_dim : kDeepseekHead;
    model.kv_heads = model.heads;
  }
  return model;
}

/// GPUs of one NVLink domain; a rack of several servers (NVL72) is one node here. A run that does
/// not fill whole domains has as many servers in each as divide it evenly: 64 of 72 GPUs.
int gpus_of_node(const ClusterText& text) {
  const int server = text.gpus_per_node;
  for (int size = std::min(text.nvlink_domain, text.gpus) / server * server; size > server;
       size -= server)
    if (text.gpus % size == 0) return size;
  return server;
}

ClusterSpec cluster_of(const ClusterText& text) {
  const int gpus = gpus_of_node(text), servers = gpus / text.gpus_per_node;
  NodeSpec node{.id = "measured",
                .name = "measured node",
                .gpu = *find_gpu(text.gpu),
                .gpus = gpus,
                .nvswitch = text.nvlink_domain != 1,
                .nics = text.nics_per_node > 0 ? servers * text.nics_per_node : gpus,
                .nic_bandwidth_bytes_per_s = text.nic_gbit_s * kGbit,
                .nic_latency_s = nic_latency_s(text.network)};
  if (node.gpu.nvlink_bandwidth_bytes_per_s <= 0) node.nvswitch = false;
  // A single node's NICs carry nothing; any rate keeps the graph well-formed.
  if (node.nic_bandwidth_bytes_per_s <= 0) node.nic_bandwidth_bytes_per_s = 100 * kGbit;
  ClusterSpec cluster;
  cluster.groups.push_back({.node = node, .count = text.gpus / gpus});
  return cluster;
}

/// "norm + activation" as the names that plans have for what is repeated; empty where a part of it
/// has none, or the text is one word for a whole way of recomputing. Megatron-LM's names of
/// --recompute-modules are understood too.
std::optional<std::vector<std::string>> repeated_parts(const std::string& recompute) {
  static const std::map<std::string, std::string> known{{"norm", "norm"},
                                                        {"layernorm", "norm"},
                                                        {"attention", "attention"},
                                                        {"core_attn", "attention"},
                                                        {"activation", "ffn-activation"},
                                                        {"moe_act", "ffn-activation"},
                                                        {"ffn", "ffn"},
                                                        {"mlp", "ffn"},
                                                        {"moe", "ffn"},
                                                        {"mla_up_proj", "latent-up"}};
  std::vector<std::string> parts;
  std::string word;
  for (const char letter : recompute + "+") {
    if (letter == ' ') continue;
    if (letter != '+' && letter != ',') {
      word += letter;
      continue;
    }
    const auto part = known.find(word);
    if (part == known.end()) return std::nullopt;
    if (std::find(parts.begin(), parts.end(), part->second) == parts.end())
      parts.push_back(part->second);
    word.clear();
  }
  return parts;
}

Plan plan_of(const PlanText& text) {
  Plan plan;
  plan.name = "measured";
  plan.dp = text.dp;
  plan.tp = text.tp;
  plan.cp = text.cp;
  plan.pp = text.pp;
  plan.ep = text.ep;
  // How experts are cut is not told: over the tensor ranks, unless there are too few ranks for it.
  if (text.ep > text.dp) plan.experts.tp = 1;
  plan.virtual_stages = text.virtual_stages;
  // DualPipe's stages hold two pieces of the model by nature, which some count; it pairs forwards
  // with backwards so that each hides the other's way to the experts (arXiv 2412.19437, §3.2.1).
  const bool dual = text.schedule == ScheduleKind::DualPipe;
  if (dual && text.virtual_stages == 2) plan.virtual_stages = 1;
  plan.micro_batch = text.micro_batch;
  plan.schedule = text.schedule;
  plan.zero = text.zero;
  plan.sequence_parallel = text.sequence_parallel;
  plan.precision = text.precision;
  plan.overlap = {.gradients = text.overlap.dp,
                  .parameters = text.overlap.dp && text.zero > 0,
                  .pipeline = text.overlap.pp,
                  .tensor = text.overlap.tp,
                  .tensor_pieces = text.overlap.tp,
                  .context = text.overlap.cp,
                  .experts = text.overlap.ep || dual};
  if (text.fsdp_group > 0 && text.zero >= 2) plan.shard = text.fsdp_group;
  for (const auto& [name, recompute] : recompute_names())
    if (name == text.recompute) plan.recompute = recompute;
  if (const auto parts = repeated_parts(text.recompute)) {
    plan.recompute = Recompute::Selective;
    plan.recompute_operators = *parts;
  }
  return plan;
}

/// What the file says and this program has no noun for.
std::string why_not_expressible(const RunText& run, const std::vector<std::string>& unknown) {
  if (!unknown.empty()) return unknown.front() + " is not known here";
  const std::string& attention = run.model.attention;
  if (attention != "gqa" && attention != "mha" && attention != "mqa" && attention != "mla")
    return attention + " attention is not modelled";
  const auto& names = recompute_names();
  const bool one_word = std::any_of(names.begin(), names.end(), [&](const auto& name) {
    return name.first == run.plan.recompute;
  });
  if (!one_word && !repeated_parts(run.plan.recompute))
    return "recomputing " + run.plan.recompute + " is not modelled";
  if (run.plan.fsdp_group > 0 && run.plan.fsdp_group != run.plan.dp && run.plan.zero < 2)
    return "optimizer states shared by a part of the data ranks are not modelled";
  return "";
}

/// Jean Zay is the Omni-Path system of published runs. BigScience ran it with
/// CUDA_LAUNCH_BLOCKING=1, since without it jobs of 40 nodes hung (chronicles of BLOOM-176B,
/// "dealing with JZ hanging": 91 instead of 97 TFLOP/s a GPU on 80 GPUs).
bool launches_block(const RunText& run) {
  return run.cluster.blocking_launches || (run.cluster.network == NetworkKind::OmniPath &&
                                           run.framework == Framework::MegatronDeepspeed);
}

MeasuredRun run_of(const RunText& text, const std::vector<std::string>& unknown) {
  MeasuredRun run;
  run.id = text.id;
  run.family = text.family;
  run.source = text.source;
  run.note = text.note;
  run.framework = text.framework;
  run.model = model_of(text);
  run.cluster = cluster_of(text.cluster);
  run.gpus = text.cluster.gpus;
  run.blocking_launches = launches_block(text);
  run.workload = {.global_batch = text.plan.global_batch, .seq_len = text.model.seq_len};
  run.plan = plan_of(text.plan);
  run.measured = {.step_time_s = text.measured.step_time_s,
                  .peak_memory_bytes = text.measured.peak_memory_gib * kGibibyte,
                  .reserved_memory_bytes = text.measured.reserved_memory_gib * kGibibyte,
                  .out_of_memory = text.measured.out_of_memory};
  run.not_expressible = why_not_expressible(text, unknown);
  return run;
}

/// Changes an object by what the run says in the words of scenarios.
template <class T>
void change(T& object, const FieldTable<T>& table, const JsonValue& said, Reading& reading,
            const std::string& pointer) {
  if (said.is_object() && said.members.empty()) return;
  const Reading::At at(reading, pointer);
  reading.set_partial(true);
  table.read(said, reading, object);
  reading.set_partial(false);
}

void apply_nouns(const RunNouns& nouns, Reading& reading, const std::string& pointer,
                 MeasuredRun& run) {
  change(run.model, model_table(), nouns.model, reading, pointer + "/model");
  change(run.plan, plan_table(), nouns.plan, reading, pointer + "/plan");
  change(run.cluster.groups.front().node, node_table(), nouns.node, reading, pointer + "/cluster");
  change(run.cluster.fabric, fabric_table(), nouns.fabric, reading, pointer + "/cluster/fabric");
  change(run.workload, workload_table(), nouns.workload, reading, pointer + "/workload");
}

}  // namespace

std::optional<std::vector<MeasuredRun>> read_measured_runs(std::string_view text,
                                                           const std::string& path,
                                                           Problems& problems) {
  constexpr JsonLimits kLimits{.bytes = std::size_t{64} << 20, .values = 8'000'000, .depth = 16};
  JsonDocument document = parse_json(text, path, problems, kLimits);
  if (!document.parsed) return std::nullopt;
  drop_nulls(document.root);
  const std::vector<std::string> configurations = configurations_of(document.root);
  const std::vector<RunNouns> nouns = take_nouns(document.root);
  Reading reading(document.source, problems);
  RunsText read;
  if (!runs_text_table().read(document.root, reading, read)) return std::nullopt;
  std::vector<MeasuredRun> runs;
  for (std::size_t i = 0; i < read.runs.size(); ++i) {
    const RunText& text_of_run = read.runs[i];
    MeasuredRun run = run_of(text_of_run, nouns[i].unknown);
    run.configuration = configurations[i];
    apply_nouns(nouns[i], reading, "/runs/" + std::to_string(i), run);
    run.plan = framework_plan(run.framework, std::move(run.plan), run.model,
                              run.cluster.groups.front().node.gpu);
    runs.push_back(std::move(run));
  }
  if (reading.problem_count() > 0) return std::nullopt;
  return runs;
}

}  // namespace rehearse
