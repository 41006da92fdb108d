#include "planner/run_document.h"

#include <algorithm>

#include "plan/choice_tables.h"
#include "plan/edit_distance.h"
#include "plan/noun_tables.h"
#include "topologies/cluster_reader.h"

namespace rehearse {
namespace {

const Names<NetworkKind>& network_names() {
  static const Names<NetworkKind> names{{"infiniband", NetworkKind::Infiniband},
                                        {"roce", NetworkKind::Roce},
                                        {"omni-path", NetworkKind::OmniPath},
                                        {"efa", NetworkKind::Efa},
                                        {"ethernet", NetworkKind::Ethernet}};
  return names;
}

constexpr Range kDegree{.minimum = 1, .maximum = kMostRanks};
constexpr Range kCount{.minimum = 0, .maximum = kMostRanks};

const Names<Activation>& mlp_names() {
  static const Names<Activation> names{{"gelu", Activation::Gelu},
                                       {"swiglu", Activation::Swiglu},
                                       {"sqrelu", Activation::SquaredRelu}};
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

/// Both in the words of this program's models and in those of Hugging Face configurations.
const FieldTable<LatentText>& latent_text_table() {
  constexpr Range kWidth{1, kMostHidden}, kWidthOrNone{0, kMostHidden};
  static const FieldTable<LatentText> table =
      FieldTable<LatentText>("measured_latent_attention", "Its latent attention.")
          .integer("kv_rank", &LatentText::kv_rank, kWidth, "width of keys' and values' latent")
          .integer("kv_lora_rank", &LatentText::kv_rank, kWidth, "the same")
          .integer("query_rank", &LatentText::query_rank, kWidthOrNone,
                   "width of the queries' latent; 0: none")
          .integer("q_lora_rank", &LatentText::query_rank, kWidthOrNone, "the same")
          .integer("rope_dim", &LatentText::rope_dim, kWidth, "rotated part of a head")
          .integer("qk_rope_head_dim", &LatentText::rope_dim, kWidth, "the same")
          .integer("nope_dim", &LatentText::nope_dim, kWidth, "part of a head without rotation")
          .integer("qk_nope_head_dim", &LatentText::nope_dim, kWidth, "the same")
          .integer("value_dim", &LatentText::value_dim, kWidth, "size of one value head")
          .integer("v_head_dim", &LatentText::value_dim, kWidth, "the same");
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
          .text("attention", &ModelText::attention,
                "kind of attention: mha, mqa, gqa, mla, or another by name")
          .boolean("tied_embeddings", &ModelText::tied_embeddings,
                   "the head reuses the embedding's weights")
          .object("moe", &ModelText::moe, mixture_text_table(), "a mixture of experts")
          .object("mla", &ModelText::mla, latent_text_table(), "latent attention")
          .check([](ModelText& model, ObjectCheck& check) {
            model.tied_embeddings_given = check.has("tied_embeddings");
            model.is_mixture = check.has("moe");
            model.is_latent = check.has("mla") || model.attention == "mla";
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
          .boolean("pp", &OverlapText::pp, "transfers between stages")
          .boolean("cp", &OverlapText::cp, "keys and values on their way round a ring")
          .boolean("ep", &OverlapText::ep, "tokens on their way to experts and back");
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
          .choice("schedule", &PlanText::schedule, schedule_names(), "pipeline schedule")
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

std::vector<std::string> keys_of(const Table& table) {
  std::vector<std::string> keys;
  for (const Field& field : table.fields()) keys.push_back(field.key);
  return keys;
}

bool is_no(const JsonValue& value) { return value.kind == JsonKind::Boolean && !value.boolean; }

/// One object of a run, its format's table, and the table of the noun that it becomes.
struct Part {
  std::string name;
  const Table& own;
  const Table& noun;
  /// Of the noun what its run says in another way, or somewhere else.
  std::vector<std::string> said_elsewhere;
};

/// Moves members that only the noun's table knows. What is switched off needs no noun.
void take(JsonValue& object, const Part& part, JsonValue& taken,
          std::vector<std::string>& unknown) {
  taken.offset = object.offset;
  std::vector<std::string> known = keys_of(part.own);
  for (const std::string& key : keys_of(part.noun)) known.push_back(key);
  std::vector<JsonMember> kept;
  for (JsonMember& member : object.members) {
    const auto& said = part.said_elsewhere;
    const bool elsewhere = std::find(said.begin(), said.end(), member.key) != said.end();
    if (part.own.find(member.key) != nullptr)
      kept.push_back(std::move(member));
    else if (part.noun.find(member.key) != nullptr && !elsewhere)
      taken.members.push_back(std::move(member));
    else if (!did_you_mean(member.key, known).empty())
      kept.push_back(std::move(member));
    else if (!is_no(member.value))
      unknown.push_back(part.name + "/" + member.key);
  }
  object.members = std::move(kept);
}

/// The whole member, where the run has it.
void take_member(JsonValue& object, const char* key, JsonValue& taken) {
  const auto at = std::find_if(object.members.begin(), object.members.end(),
                               [&](const JsonMember& member) { return member.key == key; });
  if (at == object.members.end()) return;
  taken = std::move(at->value);
  object.members.erase(at);
}

RunNouns take_from_run(JsonValue& run) {
  const Part model{"model", model_text_table(), model_table(), {"name", "base", "hugging_face"}};
  const Part plan{"plan", plan_text_table(), plan_table(), {"name", "framework", "shard"}};
  const Part overlap{"plan/overlap", overlap_text_table(), transfer_overlap_table(), {}};
  const Part cluster{
      "cluster", cluster_text_table(), node_table(), {"id", "name", "gpu", "source", "power"}};
  RunNouns nouns;
  JsonValue transfers = JsonValue::object();
  if (JsonValue* object = run.find("model")) take(*object, model, nouns.model, nouns.unknown);
  if (JsonValue* object = run.find("plan")) {
    take(*object, plan, nouns.plan, nouns.unknown);
    if (JsonValue* inner = object->find("overlap")) take(*inner, overlap, transfers, nouns.unknown);
    if (!transfers.members.empty()) nouns.plan.add("overlap", std::move(transfers));
  }
  if (JsonValue* object = run.find("cluster")) {
    take_member(*object, "fabric", nouns.fabric);
    take(*object, cluster, nouns.node, nouns.unknown);
  }
  take_member(run, "workload", nouns.workload);
  return nouns;
}

}  // namespace

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

std::vector<RunNouns> take_nouns(JsonValue& document) {
  std::vector<RunNouns> nouns;
  JsonValue* runs = document.find("runs");
  if (runs == nullptr) return nouns;
  for (JsonValue& run : runs->items) nouns.push_back(take_from_run(run));
  return nouns;
}

}  // namespace rehearse
