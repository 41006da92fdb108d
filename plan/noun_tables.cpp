#include "plan/noun_tables.h"

#include <algorithm>

#include "plan/choice_tables.h"
#include "plan/hugging_face.h"
#include "plan/mixture.h"
#include "plan/model_catalogue.h"
#include "plan/plan_file.h"

namespace rehearse {
namespace {

const Names<Axis>& axis_names() {
  static const Names<Axis> names = {
      {"tp", Axis::Tensor}, {"cp", Axis::Context}, {"dp", Axis::Data}, {"pp", Axis::Pipeline}};
  return names;
}

void check_mixture(const Model& model, ObjectCheck& check) {
  const Experts& experts = model.experts;
  if (experts.count > 0 && experts.active > experts.count)
    check.problem("experts",
                  "a token cannot pass " + std::to_string(experts.active) + " of " +
                      std::to_string(experts.count) + " experts",
                  "\"active\" of at most \"count\"");
  if (experts.count == 0 && (experts.shared_ffn > 0 || experts.leading_dense > 0))
    check.problem("experts", "shared experts and leading dense layers belong to a mixture",
                  "give \"count\", the routed experts of a layer");
  if (experts.leading_dense > model.layers)
    check.problem("experts", std::to_string(experts.leading_dense) +
                                 " leading dense layers are more than the model has");
  if (is_latent(model) && (model.latent.rope_dim == 0 || model.latent.value_dim == 0))
    check.problem("latent_attention", "latent attention needs rope_dim and value_dim");
  if (is_latent(model) && model.kv_heads != model.heads)
    check.problem("latent_attention", "latent attention gives every head its own key and value",
                  "kv_heads as heads, or left out");
}

/// Fills what follows from other sizes and checks the invariants of Model.
void check_model(Model& model, ObjectCheck& check) {
  // A name alone, or a name with changes, has these from where it comes.
  const bool whole = check.has("heads") && !check.has("base") && !check.has("hugging_face");
  if (whole && !check.has("kv_heads")) model.kv_heads = model.heads;
  if (whole && !check.has("head_dim")) {
    if (model.hidden % model.heads != 0) {
      check.problem("heads",
                    "hidden = " + std::to_string(model.hidden) +
                        " is no multiple of heads = " + std::to_string(model.heads),
                    "give head_dim, the size of one head");
      return;
    }
    model.head_dim = model.hidden / model.heads;
  }
  if (model.heads % model.kv_heads != 0)
    check.problem(check.has("kv_heads") ? "kv_heads" : "heads",
                  "heads = " + std::to_string(model.heads) +
                      " is no multiple of kv_heads = " + std::to_string(model.kv_heads),
                  "every key/value head serves the same number of heads; set kv_heads too");
  check_mixture(model, check);
}

/// Remembers what the file says of itself: nobody's default replaces it.
void note_stated(Plan& plan, const ObjectCheck& check) {
  plan.stated.clear();
  for (const Field& field : plan_table().fields()) {
    const JsonValue* value = check.value(field.key);
    if (!value) continue;
    plan.stated.push_back(field.key);
    if (value->is_object())
      for (const JsonMember& member : value->members)
        plan.stated.push_back(field.key + "/" + member.key);
  }
}

void check_plan_choices(Plan& plan, ObjectCheck& check) {
  note_stated(plan, check);
  const JsonValue* schedule = check.value("schedule");
  if (schedule && schedule->text == "interleaved-1f1b" && plan.virtual_stages < 2)
    check.problem("schedule", "interleaving needs virtual_stages of at least 2",
                  "set virtual_stages, or write \"1f1b\"");
  std::vector<Action> actions;
  for (std::size_t stage = 0; stage < plan.actions.size(); ++stage)
    if (!parse_actions(plan.actions[stage], actions))
      check.problem("actions",
                    "the actions of stage " + std::to_string(stage) + " are not readable",
                    "write them like \"F0 F1 B0 B1\", or \"F0.1\" for chunk 1");
  if (plan.schedule_group > 0 && plan.virtual_stages < 2)
    check.problem("schedule_group", "groups of micro-batches belong to interleaving",
                  "set virtual_stages to at least 2, or leave schedule_group out");
  // Products of these are ranks and chunks: none may leave the range of int.
  const double ranks = double(std::max(plan.dp, 1)) * plan.tp * plan.cp * plan.pp;
  if (ranks > kMostRanks)
    check.problem("tp", "dp·tp·cp·pp makes " + format_count(ranks) + " ranks; at most " +
                            format_count(kMostRanks) + " are possible");
  const double chunks = double(plan.pp) * plan.virtual_stages;
  if (chunks > kMostLayers)
    check.problem("virtual_stages", "pp·virtual_stages makes " + format_count(chunks) +
                                        " chunks; at most " + format_count(kMostLayers) +
                                        " are possible");
}

/// A model from a configuration file, found from the folder of the document that names it.
bool fill_from_hugging_face(const std::string& path, Reading& reading, Model& model) {
  Problems found;
  const auto read = read_hugging_face_file((reading.folder() / path).string(), found);
  for (const Problem& problem : found.all()) reading.pass_on(problem);
  if (read) model = *read;
  return read.has_value();
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Model& model : model_catalogue()) names.push_back(model.name);
  return names;
}

}  // namespace

const Names<Activation>& activation_names() {
  static const Names<Activation> names = {{"gelu", Activation::Gelu},
                                          {"swiglu", Activation::Swiglu},
                                          {"squared-relu", Activation::SquaredRelu}};
  return names;
}

const Names<Norm>& norm_names() {
  static const Names<Norm> names = {{"layer-norm", Norm::LayerNorm}, {"rms-norm", Norm::RmsNorm}};
  return names;
}

const Names<Positions>& positions_names() {
  static const Names<Positions> names = {{"learned", Positions::Learned},
                                         {"rotary", Positions::Rotary}};
  return names;
}

const Names<ScheduleKind>& schedule_names() {
  static const Names<ScheduleKind> names = {{"gpipe", ScheduleKind::Gpipe},
                                            {"1f1b", ScheduleKind::OneFOneB},
                                            {"interleaved-1f1b", ScheduleKind::OneFOneB},
                                            {"layer-wise", ScheduleKind::LayerWise},
                                            {"zb-h1", ScheduleKind::ZbH1},
                                            {"zb-h2", ScheduleKind::ZbH2},
                                            {"zb-v", ScheduleKind::ZbV},
                                            {"dualpipe", ScheduleKind::DualPipe}};
  return names;
}

const Names<Recompute>& recompute_names() {
  static const Names<Recompute> names = {{"none", Recompute::None},
                                         {"selective", Recompute::Selective},
                                         {"operators", Recompute::Operators},
                                         {"full", Recompute::Full}};
  return names;
}

const Names<AttentionKernel>& attention_names() {
  static const Names<AttentionKernel> names = {{"flash", AttentionKernel::Flash},
                                               {"plain", AttentionKernel::Plain}};
  return names;
}

const Names<Precision>& precision_names() {
  static const Names<Precision> names = {{"fp32", Precision::Fp32},
                                         {"bf16", Precision::Bf16},
                                         {"fp16", Precision::Fp16},
                                         {"fp8", Precision::Fp8}};
  return names;
}

std::string rank_order_text(const std::array<Axis, kAxisCount>& order) {
  std::string text;
  for (const Axis axis : order)
    text.append(text.empty() ? "" : "-").append(name_of(axis_names(), axis));
  return text;
}

std::string parse_rank_order(const std::string& text, std::array<Axis, kAxisCount>& order) {
  const std::string fault = json_quoted(text) + " does not name each of tp, cp, dp and pp once";
  std::array<Axis, kAxisCount> parsed{};
  std::array<bool, kAxisCount> seen{};
  std::size_t count = 0, begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find('-', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    begin = end + 1;
    bool known = false;
    for (const auto& [axis_name, axis] : axis_names()) {
      bool& used = seen[static_cast<std::size_t>(axis)];
      if (axis_name != name || used || count == parsed.size()) continue;
      parsed[count++] = axis;
      known = used = true;
    }
    if (!known) return fault;
  }
  if (count != parsed.size()) return fault;
  order = parsed;
  return "";
}

const FieldTable<Model>& model_table() {
  static const FieldTable<Model> table =
      FieldTable<Model>("model", "A decoder-only transformer; sizes are counts of elements")
          .catalogue("model", find_model, model_names)
          .origin("hugging_face", "configuration",
                  "A Hugging Face config.json, found from the folder of this file",
                  fill_from_hugging_face)
          .text("name", &Model::name, "what reports call it")
          .integer("layers", &Model::layers, {1, kMostLayers}, "transformer layers")
          .required()
          .integer("hidden", &Model::hidden, {1, kMostHidden}, "width of the residual stream")
          .required()
          .integer("heads", &Model::heads, {1, kMostHeads}, "attention heads")
          .required()
          .integer("kv_heads", &Model::kv_heads, {1, kMostHeads},
                   "key/value heads: as many as heads (multi-head), fewer (grouped) or 1")
          .default_note("as heads")
          .integer("head_dim", &Model::head_dim, {1, kMostHeads}, "size of one head")
          .default_note("hidden / heads")
          .integer("ffn", &Model::ffn, {1, kMostFfn},
                   "width inside the feed-forward block (of each half of SwiGLU)")
          .required()
          .integer("vocab", &Model::vocab, {1, kMostVocab}, "rows of the token table, unpadded")
          .required()
          .integer("max_seq_len", &Model::max_seq_len, {1, kMostTokensPerSequence},
                   "longest sequence it was made for; the default of a workload")
          .choice("activation", &Model::activation, activation_names(),
                  "activation of the feed-forward block")
          .choice("norm", &Model::norm, norm_names(), "kind of the normalisations")
          .choice("positions", &Model::positions, positions_names(),
                  "how positions enter: a learned table, or rotary embeddings")
          .boolean("tied_embeddings", &Model::tied_embeddings,
                   "the head reuses the embedding's weights")
          .boolean("linear_bias", &Model::linear_bias,
                   "biases on the linear layers of attention and feed-forward")
          .boolean("qkv_bias", &Model::qkv_bias,
                   "biases on query, key and value even where linear_bias is off")
          .integer("window", &Model::window, {0, kMostTokensPerSequence},
                   "tokens that attention looks back (sliding window)")
          .omit_default()
          .default_note("all")
          .object("experts", &Model::experts, experts_table(), "mixture of experts")
          .omit_default()
          .object("latent_attention", &Model::latent, latent_attention_table(),
                  "multi-head latent attention (DeepSeek-V2)")
          .omit_default()
          .integer("mtp_layers", &Model::mtp_layers, {0, kMostMtpLayers},
                   "modules that predict one further token each (DeepSeek-V3)")
          .omit_default()
          .default_note("none")
          .check(check_model);
  return table;
}

const FieldTable<Plan>& plan_table() {
  static const FieldTable<Plan> table =
      FieldTable<Plan>("plan", "How the model is spread over ranks, and in what order it works")
          .text("name", &Plan::name, "what reports call it")
          .default_note("from its sizes")
          .choice(
              "framework", &Plan::framework, framework_names(),
              "training program: its defaults where nothing is said, and what it adds to a step")
          .omit_default()
          .integer("dp", &Plan::dp, {0, kMostRanks}, "data-parallel replicas")
          .default_note("all GPUs that tp·cp·pp leave")
          .integer("tp", &Plan::tp, {1, kMostRanks}, "tensor-parallel ranks")
          .integer("cp", &Plan::cp, {1, kMostRanks}, "context-parallel ranks")
          .integer("pp", &Plan::pp, {1, kMostRanks}, "pipeline stages")
          .integer("ep", &Plan::ep, {1, kMostRanks}, "expert-parallel ranks, inside the data ranks")
          .integer("tensor_rows", &Plan::tensor_rows, {1, kMostRanks},
                   "two-dimensional tensor parallelism: rows of the grid that weights are cut over")
          .omit_default()
          .choice("context", &Plan::context, context_names(),
                  "how context ranks attend over each other's tokens")
          .omit_default()
          .boolean("context_balanced", &Plan::context_balanced,
                   "a context rank holds an early and a late piece of the sequence")
          .omit_default()
          .object("experts", &Plan::experts, expert_plan_table(), "tokens of a mixture's experts")
          .omit_default()
          .integer("virtual_stages", &Plan::virtual_stages, {1, kMostLayers},
                   "model chunks a stage holds; more than 1 interleaves")
          .integer("micro_batch", &Plan::micro_batch, {1, kMostMicroBatch},
                   "sequences a micro-batch")
          .choice("schedule", &Plan::schedule, schedule_names(), "order of work inside a stage")
          .integer("zero", &Plan::zero, {0, 3},
                   "ZeRO stage, what data ranks share out: 0 nothing, 1 optimizer state, 2 "
                   "gradients too, 3 weights too (FSDP)")
          .integer("shard", &Plan::shard, {0, kMostRanks},
                   "ZeRO-2 and 3: data ranks that share one set of shards (HSDP)")
          .default_note("all data ranks")
          .integer("prefetch", &Plan::prefetch, {0, kMostLayers},
                   "ZeRO-3: layers whose weights are gathered ahead of the one at work")
          .boolean("reshard_after_forward", &Plan::reshard_after_forward,
                   "ZeRO-3: weights are dropped after the forward and gathered again")
          .boolean("reduce_every_micro_batch", &Plan::reduce_every_micro_batch,
                   "ZeRO-2 and 3: gradients are reduced after every micro-batch")
          .boolean("sequence_parallel", &Plan::sequence_parallel,
                   "tensor ranks also share the tokens of norms and dropouts")
          .boolean("vocabulary_parallel", &Plan::vocabulary_parallel,
                   "embedding and head are split over tensor ranks")
          .choice("recompute", &Plan::recompute, recompute_names(),
                  "activations repeated in the backward: none, the attention core, all operators "
                  "but attention and every other product, or all")
          .integer("recompute_layers", &Plan::recompute_layers, {-1, kMostLayers},
                   "layers of each chunk that recompute, from its first; -1: all")
          .omit_default()
          .texts("recompute_operators", &Plan::recompute_operators, {0, 4},
                 "selective: what is repeated, of attention, norm, ffn, ffn-activation, latent-up")
          .omit_default()
          .default_note("attention")
          .object("offload", &Plan::offload, offload_table(), "what lies in host memory")
          .omit_default()
          .choice("attention", &Plan::attention, attention_names(),
                  "attention kernel: plain stores the scores, flash repeats them")
          .choice("precision", &Plan::precision, precision_names(), "of weights and activations")
          .object("fp8", &Plan::fp8, fp8_table(), "which products of an fp8 plan are fp8")
          .omit_default()
          .object("activation_store", &Plan::store, activation_store_table(),
                  "activations saved in fewer bits than they are computed with")
          .omit_default()
          .choice("gradient_precision", &Plan::gradient_precision, precision_names(),
                  "of gradient accumulation and reduction")
          .choice("moment_precision", &Plan::moment_precision, precision_names(),
                  "of Adam's two moments")
          .omit_default()
          .default_note("fp32")
          .number("dropout", &Plan::dropout, {0, 1},
                  "probability; above 0, masks are kept for the backward")
          .quantity("bucket", &Plan::bucket_bytes, Dimension::Bytes, {0, 1e15},
                    "size of a gradient bucket")
          .default_note("of max(40 M, 1 M · dp) parameters")
          .object("overlap", &Plan::overlap, transfer_overlap_table(),
                  "which transfers run beside computation")
          .object("updates", &Plan::updates, updates_table(),
                  "how the gradients of replicas become one update")
          .omit_default()
          .choice("batch_split", &Plan::batch_split, batch_split_names(),
                  "how replicas share the samples of a step")
          .omit_default()
          .integers("replica_micro_batches", &Plan::replica_micro_batches, {1, kMostGlobalBatch},
                    {0, kMostRanks}, "micro-batches of each replica in a step")
          .omit_default()
          .default_note("all the same number, or as batch_split says")
          .integer("rebalance_every", &Plan::rebalance_every, {0, 1'000'000},
                   "steps between new shares of samples, by measured speed")
          .omit_default()
          .default_note("never")
          .choice("stage_placement", &Plan::stage_placement, deal_names(),
                  "how the model's pieces, pp · virtual_stages, are dealt out to stages")
          .omit_default()
          .spelling("rank_order", &Plan::rank_order, parse_rank_order, rank_order_text,
                    "tp-cp-dp-pp", "order of the axes over GPUs, fastest-varying first")
          .integers_or("balanced", &Plan::balanced_split, "layer_split", &Plan::layer_split,
                       {0, kMostLayers}, {0, kMostLayers},
                       "layers of each chunk in model order (pp · virtual_stages numbers); "
                       "balanced: those whose slowest stage is the fastest")
          .default_note("as even as whole numbers allow")
          .boolean("embedding_slot", &Plan::embedding_slot,
                   "even split: the embedding counts as one layer")
          .boolean("loss_slot", &Plan::loss_slot, "even split: head and loss count as one layer")
          .integer("schedule_group", &Plan::schedule_group, {0, kMostGlobalBatch},
                   "interleaving: micro-batches of one chunk in a row")
          .default_note("as many as stages")
          .texts("actions", &Plan::actions, {0, kMostRanks},
                 "explicit order of work, one text a stage: \"F0 F1 B0 B1\"")
          .omit_default()
          .default_note("the schedule's")
          .check(check_plan_choices);
  return table;
}

const FieldTable<Workload>& workload_table() {
  static const FieldTable<Workload> table =
      FieldTable<Workload>("workload", "What is to be trained")
          .constant("kind", "training", "what is done with the model")
          .integer("global_batch", &Workload::global_batch, {1, kMostGlobalBatch},
                   "sequences a step, over all replicas")
          .required()
          .integer("seq_len", &Workload::seq_len, {0, kMostTokensPerSequence}, "tokens a sequence")
          .default_note("the model's max_seq_len")
          .quantity("tokens", &Workload::tokens, Dimension::Count, {0, 1e18},
                    "tokens of the whole run")
          .default_note("not stated")
          .object("documents", &Workload::documents, documents_table(),
                  "lengths of the documents that sequences are packed from")
          .omit_default()
          .choice("partition", &Workload::partition, deal_names(),
                  "how samples of differing length are dealt out to replicas")
          .omit_default()
          .object("routing", &Workload::routing, routing_table(),
                  "how unevenly a router deals tokens out to experts")
          .omit_default();
  return table;
}

}  // namespace rehearse
