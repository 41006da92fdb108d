#include "planner/measured_runs.h"

#include <algorithm>
#include <map>
#include <optional>

#include "plan/edit_distance.h"
#include "plan/field_table.h"
#include "plan/json_document.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

constexpr double kGibibyte = 1024.0 * 1024 * 1024;
constexpr double kGbit = 1e9 / 8;

enum class NetworkKind : std::uint8_t { Infiniband, Roce, OmniPath, Efa, Ethernet };

const Names<NetworkKind>& network_names() {
  static const Names<NetworkKind> names{{"infiniband", NetworkKind::Infiniband},
                                        {"roce", NetworkKind::Roce},
                                        {"omni-path", NetworkKind::OmniPath},
                                        {"efa", NetworkKind::Efa},
                                        {"ethernet", NetworkKind::Ethernet}};
  return names;
}

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

// The document as it is written.

struct MixtureText {
  int experts = 1, topk = 1, shared = 0, ffn = 0, dense_layers = 0;
};

struct ModelText {
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  int seq_len = 0;
  Activation mlp = Activation::Gelu;
  std::string attention = "gqa";
  bool tied_embeddings = false, tied_embeddings_given = false;
  bool is_mixture = false;
  MixtureText moe;
};

struct ClusterText {
  std::string gpu;
  int gpus = 0, gpus_per_node = 8, nvlink_domain = 0, nics_per_node = 0;
  double nic_gbit_s = 0;
  NetworkKind network = NetworkKind::Infiniband;
  bool blocking_launches = false;
};

struct OverlapText {
  bool dp = false, tp = false, pp = false;
};

struct PlanText {
  int dp = 1, tp = 1, pp = 1, cp = 1, ep = 1, virtual_stages = 1, micro_batch = 1, zero = 0;
  std::int64_t global_batch = 1;
  bool sequence_parallel = false;
  std::string recompute = "none";
  Precision precision = Precision::Bf16;
  ScheduleKind schedule = ScheduleKind::OneFOneB;
  int fsdp_group = 0;
  OverlapText overlap;
};

struct MeasuredText {
  double step_time_s = 0, peak_memory_gib = 0, reserved_memory_gib = 0;
  bool out_of_memory = false;
};

struct RunText {
  std::string id, family, source, note;
  Framework framework = Framework::Generic;
  bool read_in_source = true;
  ModelText model;
  ClusterText cluster;
  PlanText plan;
  MeasuredText measured;
};

struct RunsText {
  std::string about;
  std::vector<RunText> runs;
};

constexpr Range kSize{.minimum = 1, .maximum = 1 << 24};
constexpr Range kDegree{.minimum = 1, .maximum = kMostRanks};
constexpr Range kCount{.minimum = 0, .maximum = kMostRanks};

const Names<Activation>& mlp_names() {
  static const Names<Activation> names{{"gelu", Activation::Gelu},
                                       {"swiglu", Activation::Swiglu},
                                       {"sqrelu", Activation::SquaredRelu}};
  return names;
}

const Names<ScheduleKind>& run_schedule_names() {
  static const Names<ScheduleKind> names{{"1f1b", ScheduleKind::OneFOneB},
                                         {"interleaved-1f1b", ScheduleKind::OneFOneB},
                                         {"gpipe", ScheduleKind::Gpipe},
                                         {"layer-wise", ScheduleKind::LayerWise}};
  return names;
}

const FieldTable<MixtureText>& mixture_text_table() {
  static const FieldTable<MixtureText> table =
      FieldTable<MixtureText>("measured_mixture", "Its experts.")
          .integer("experts", &MixtureText::experts, {1, kMostHeads}, "routed experts of a layer")
          .required()
          .integer("topk", &MixtureText::topk, {1, kMostHeads}, "experts a token passes")
          .integer("shared", &MixtureText::shared, {0, kMostHeads}, "shared experts")
          .integer("ffn", &MixtureText::ffn, {0, kMostFfn}, "width of one expert")
          .integer("dense_layers", &MixtureText::dense_layers, {0, kMostLayers},
                   "leading layers without experts");
  return table;
}

const FieldTable<ModelText>& model_text_table() {
  static const FieldTable<ModelText> table =
      FieldTable<ModelText>("measured_model", "The model that was trained.")
          .integer("layers", &ModelText::layers, {1, kMostLayers}, "transformer layers")
          .required()
          .integer("hidden", &ModelText::hidden, {1, kMostHidden}, "width")
          .required()
          .integer("heads", &ModelText::heads, {1, kMostHeads}, "attention heads")
          .required()
          .integer("kv_heads", &ModelText::kv_heads, {1, kMostHeads}, "key and value heads")
          .integer("head_dim", &ModelText::head_dim, {1, kMostHidden}, "size of a head")
          .integer("ffn", &ModelText::ffn, {1, kMostFfn}, "width of the feed-forward block")
          .required()
          .choice("mlp", &ModelText::mlp, mlp_names(), "activation function")
          .integer("vocab", &ModelText::vocab, {1, kMostVocab}, "vocabulary")
          .required()
          .integer("seq_len", &ModelText::seq_len, {1, kMostTokensPerSequence}, "tokens a sequence")
          .required()
          .text("attention", &ModelText::attention, "kind of attention: gqa, or another by name")
          .boolean("tied_embeddings", &ModelText::tied_embeddings,
                   "the head reuses the embedding's weights")
          .object("moe", &ModelText::moe, mixture_text_table(), "a mixture of experts")
          .check([](ModelText& model, ObjectCheck& check) {
            model.tied_embeddings_given = check.has("tied_embeddings");
            model.is_mixture = check.has("moe");
            if (model.kv_heads == 0) model.kv_heads = model.heads;
            if (model.head_dim == 0) model.head_dim = std::max(1, model.hidden / model.heads);
            if (model.heads % model.kv_heads != 0)
              check.problem("kv_heads", "heads is no multiple of kv_heads");
          });
  return table;
}

const FieldTable<ClusterText>& cluster_text_table() {
  static const FieldTable<ClusterText> table =
      FieldTable<ClusterText>("measured_cluster", "Where it ran.")
          .text("gpu", &ClusterText::gpu, "GPU, a name of the catalogue")
          .required()
          .integer("gpus", &ClusterText::gpus, kDegree, "GPUs of the run")
          .required()
          .integer("gpus_per_node", &ClusterText::gpus_per_node, {1, 1024}, "GPUs of a node")
          .integer("nvlink_domain", &ClusterText::nvlink_domain, {1, 1024},
                   "GPUs that reach each other over NVLink")
          .integer("nics_per_node", &ClusterText::nics_per_node, {0, 1024}, "NICs of a node")
          .number("nic_gbit_s", &ClusterText::nic_gbit_s, {0, 1e5}, "rate of a NIC in Gbit/s")
          .choice("network", &ClusterText::network, network_names(), "kind of network")
          .boolean("blocking_launches", &ClusterText::blocking_launches,
                   "the host waited for each kernel (CUDA_LAUNCH_BLOCKING=1)")
          .check([](ClusterText& cluster, ObjectCheck& check) {
            const GpuSpec* gpu = find_gpu(cluster.gpu);
            if (gpu == nullptr) {
              std::vector<std::string> known;
              for (const GpuSpec& spec : gpu_catalogue()) known.push_back(spec.id);
              check.problem("gpu", "no GPU of the catalogue is named " + json_quoted(cluster.gpu),
                            name_hint(cluster.gpu, known));
            }
            cluster.gpus_per_node = std::min(cluster.gpus_per_node, cluster.gpus);
            if (cluster.gpus % cluster.gpus_per_node != 0)
              check.problem("gpus", "the GPUs do not fill whole nodes");
            const bool has_network = cluster.nics_per_node > 0 && cluster.nic_gbit_s > 0;
            if (cluster.gpus > cluster.gpus_per_node && !has_network)
              check.problem("nic_gbit_s", "several nodes need nics_per_node and nic_gbit_s");
          });
  return table;
}

const FieldTable<OverlapText>& overlap_text_table() {
  static const FieldTable<OverlapText> table =
      FieldTable<OverlapText>("measured_overlap", "Which transfers ran beside computation.")
          .boolean("dp", &OverlapText::dp, "gradient reduction and parameter gathers")
          .boolean("tp", &OverlapText::tp, "collectives of tensor groups")
          .boolean("pp", &OverlapText::pp, "transfers between stages");
  return table;
}

const FieldTable<PlanText>& plan_text_table() {
  static const FieldTable<PlanText> table =
      FieldTable<PlanText>("measured_plan", "How the work was spread.")
          .integer("dp", &PlanText::dp, kDegree, "data-parallel replicas")
          .required()
          .integer("tp", &PlanText::tp, kDegree, "tensor-parallel ranks")
          .integer("pp", &PlanText::pp, kDegree, "pipeline stages")
          .integer("cp", &PlanText::cp, kDegree, "context-parallel ranks")
          .integer("ep", &PlanText::ep, kDegree, "expert-parallel ranks")
          .integer("virtual_stages", &PlanText::virtual_stages, kDegree, "model chunks of a stage")
          .integer("micro_batch", &PlanText::micro_batch, {1, kMostMicroBatch},
                   "sequences a micro-batch")
          .integer("global_batch", &PlanText::global_batch, {1, kMostGlobalBatch},
                   "sequences a step")
          .required()
          .boolean("sequence_parallel", &PlanText::sequence_parallel, "sequence parallelism")
          .text("recompute", &PlanText::recompute, "none, selective, full, or others by name")
          .integer("zero", &PlanText::zero, {0, 3}, "ZeRO stage")
          .choice("precision", &PlanText::precision, precision_names(), "of matrix products")
          .choice("schedule", &PlanText::schedule, run_schedule_names(), "pipeline schedule")
          .integer("fsdp_group", &PlanText::fsdp_group, kCount,
                   "ranks that share weights; not given: all data ranks")
          .object("overlap", &PlanText::overlap, overlap_text_table(),
                  "transfers beside computation");
  return table;
}

const FieldTable<MeasuredText>& measured_text_table() {
  static const FieldTable<MeasuredText> table =
      FieldTable<MeasuredText>("measured_values", "What was measured; null where not published.")
          .number("step_time_s", &MeasuredText::step_time_s, {1e-6, 1e6}, "seconds a step")
          .number("peak_memory_gib", &MeasuredText::peak_memory_gib, {1e-3, 1e5},
                  "the framework's figure, GiB on the fullest rank")
          .number("reserved_memory_gib", &MeasuredText::reserved_memory_gib, {1e-3, 1e5},
                  "GiB held by the framework's allocator")
          .boolean("out_of_memory", &MeasuredText::out_of_memory, "the run did not fit")
          .check([](MeasuredText& measured, ObjectCheck& check) {
            if (measured.out_of_memory && measured.step_time_s > 0)
              check.problem("step_time_s", "a run that did not fit has no step time");
          });
  return table;
}

const FieldTable<RunText>& run_text_table() {
  static const FieldTable<RunText> table =
      FieldTable<RunText>("measured_run", "One run.")
          .text("id", &RunText::id, "name of the run")
          .required()
          .text("family", &RunText::family, "runs of one source and system; errors are told by it")
          .required()
          .text("source", &RunText::source, "who published it")
          .choice("framework", &RunText::framework, framework_names(), "training program")
          .boolean("read_in_source", &RunText::read_in_source, "figures were read in the source")
          .object("model", &RunText::model, model_text_table(), "the model")
          .required()
          .object("cluster", &RunText::cluster, cluster_text_table(), "the machine")
          .required()
          .object("plan", &RunText::plan, plan_text_table(), "the plan")
          .required()
          .object("measured", &RunText::measured, measured_text_table(), "what came out")
          .required()
          .text("note", &RunText::note, "remarks");
  return table;
}

const FieldTable<RunsText>& runs_text_table() {
  static const FieldTable<RunsText> table =
      FieldTable<RunsText>("measured_runs", "Measured training runs.")
          .constant("schema", "measured-runs/1", "format of the file")
          .required()
          .text("about", &RunsText::about, "what the file holds")
          .objects("runs", &RunsText::runs, run_text_table(), {0, 100'000}, "the runs")
          .required();
  return table;
}

/// Published tables have gaps; a null is a key that is not there.
void drop_nulls(JsonValue& value) {
  std::erase_if(value.members,
                [](const JsonMember& member) { return member.value.kind == JsonKind::Null; });
  for (JsonMember& member : value.members) drop_nulls(member.value);
  for (JsonValue& item : value.items) drop_nulls(item);
}

// The document as the nouns of this program.

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
  return model;
}

ClusterSpec cluster_of(const ClusterText& text) {
  NodeSpec node{.id = "measured",
                .name = "measured node",
                .gpu = *find_gpu(text.gpu),
                .gpus = text.gpus_per_node,
                .nvswitch = text.nvlink_domain != 1,
                .nics = text.nics_per_node > 0 ? text.nics_per_node : text.gpus_per_node,
                .nic_bandwidth_bytes_per_s = text.nic_gbit_s * kGbit,
                .nic_latency_s = nic_latency_s(text.network)};
  if (node.gpu.nvlink_bandwidth_bytes_per_s <= 0) node.nvswitch = false;
  // A single node's NICs carry nothing; any rate keeps the graph well-formed.
  if (node.nic_bandwidth_bytes_per_s <= 0) node.nic_bandwidth_bytes_per_s = 100 * kGbit;
  ClusterSpec cluster;
  cluster.groups.push_back({.node = node, .count = text.gpus / text.gpus_per_node});
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
  plan.micro_batch = text.micro_batch;
  plan.schedule = text.schedule;
  plan.zero = text.zero;
  plan.sequence_parallel = text.sequence_parallel;
  plan.precision = text.precision;
  plan.overlap = {.gradients = text.overlap.dp,
                  .parameters = text.overlap.dp && text.zero > 0,
                  .pipeline = text.overlap.pp,
                  .tensor = text.overlap.tp,
                  .tensor_pieces = text.overlap.tp};
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
std::string why_not_expressible(const RunText& run) {
  if (run.model.attention != "gqa" && run.model.attention != "mha")
    return run.model.attention + " attention is not modelled";
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

MeasuredRun run_of(const RunText& text) {
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
  run.plan = framework_plan(text.framework, plan_of(text.plan), run.model,
                            run.cluster.groups.front().node.gpu);
  run.measured = {.step_time_s = text.measured.step_time_s,
                  .peak_memory_bytes = text.measured.peak_memory_gib * kGibibyte,
                  .reserved_memory_bytes = text.measured.reserved_memory_gib * kGibibyte,
                  .out_of_memory = text.measured.out_of_memory};
  run.not_expressible = why_not_expressible(text);
  return run;
}

}  // namespace

std::optional<std::vector<MeasuredRun>> read_measured_runs(std::string_view text,
                                                           const std::string& path,
                                                           Problems& problems) {
  constexpr JsonLimits kLimits{.bytes = std::size_t{64} << 20, .values = 8'000'000, .depth = 16};
  JsonDocument document = parse_json(text, path, problems, kLimits);
  if (!document.parsed) return std::nullopt;
  drop_nulls(document.root);
  Reading reading(document.source, problems);
  RunsText read;
  if (!runs_text_table().read(document.root, reading, read)) return std::nullopt;
  std::vector<MeasuredRun> runs;
  for (const RunText& run : read.runs) runs.push_back(run_of(run));
  return runs;
}

}  // namespace rehearse
