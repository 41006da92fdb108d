#include "plan/choice_tables.h"

#include "plan/noun_tables.h"

namespace rehearse {

const Names<Framework>& framework_names() {
  static const Names<Framework> names{{"generic", Framework::Generic},
                                      {"megatron", Framework::Megatron},
                                      {"megatron-deepspeed", Framework::MegatronDeepspeed},
                                      {"llm-foundry-fsdp", Framework::LlmFoundryFsdp},
                                      {"fsdp", Framework::LlmFoundryFsdp},
                                      {"torchtitan", Framework::Torchtitan},
                                      {"nanotron", Framework::Nanotron},
                                      {"rehearse", Framework::Rehearse}};
  return names;
}

const Names<ContextKind>& context_names() {
  static const Names<ContextKind> names = {{"ring", ContextKind::Ring},
                                           {"all-to-all", ContextKind::AllToAll}};
  return names;
}

const Names<Aggregation>& aggregation_names() {
  static const Names<Aggregation> names = {{"all-reduce", Aggregation::AllReduce},
                                           {"parameter-server", Aggregation::ParameterServer},
                                           {"local-sgd", Aggregation::LocalSgd}};
  return names;
}

const Names<Synchrony>& synchrony_names() {
  static const Names<Synchrony> names = {{"synchronous", Synchrony::Synchronous},
                                         {"bounded-stale", Synchrony::BoundedStale},
                                         {"asynchronous", Synchrony::Asynchronous}};
  return names;
}

const Names<Weighting>& weighting_names() {
  static const Names<Weighting> names = {{"even", Weighting::Even},
                                         {"samples", Weighting::Samples},
                                         {"reliability", Weighting::Reliability}};
  return names;
}

const Names<Fp8Scaling>& fp8_scaling_names() {
  static const Names<Fp8Scaling> names = {{"delayed", Fp8Scaling::Delayed},
                                          {"current", Fp8Scaling::Current},
                                          {"block", Fp8Scaling::Block},
                                          {"mx", Fp8Scaling::Mx}};
  return names;
}

const Names<StoredAs>& stored_as_names() {
  static const Names<StoredAs> names = {
      {"computed", StoredAs::Computed}, {"fp8", StoredAs::Fp8}, {"e5m6", StoredAs::E5m6}};
  return names;
}

const Names<Deal>& deal_names() {
  static const Names<Deal> names = {
      {"range", Deal::Range}, {"round-robin", Deal::RoundRobin}, {"random", Deal::Random}};
  return names;
}

const Names<BatchSplit>& batch_split_names() {
  static const Names<BatchSplit> names = {{"even", BatchSplit::Even},
                                          {"by-speed", BatchSplit::BySpeed}};
  return names;
}

const Names<LengthDistribution>& length_distribution_names() {
  static const Names<LengthDistribution> names = {{"log-normal", LengthDistribution::LogNormal},
                                                  {"uniform", LengthDistribution::Uniform}};
  return names;
}

const Names<Packing>& packing_names() {
  static const Names<Packing> names = {{"cut", Packing::Cut}, {"whole", Packing::Whole}};
  return names;
}

const FieldTable<Experts>& experts_table() {
  static const FieldTable<Experts> table =
      FieldTable<Experts>("experts", "Feed-forward blocks of which each token passes a few")
          .integer("count", &Experts::count, {0, kMostHeads}, "routed experts of a layer; 0: dense")
          .integer("active", &Experts::active, {1, kMostHeads}, "routed experts a token passes")
          .integer("ffn", &Experts::ffn, {0, kMostFfn}, "width of one expert")
          .default_note("the model's ffn")
          .integer("shared_ffn", &Experts::shared_ffn, {0, kMostFfn},
                   "width of all shared experts together; 0: none")
          .integer("leading_dense", &Experts::leading_dense, {0, kMostLayers},
                   "first layers with a dense block of the model's ffn instead");
  return table;
}

const FieldTable<LatentAttention>& latent_attention_table() {
  static const FieldTable<LatentAttention> table =
      FieldTable<LatentAttention>("latent_attention", "Multi-head latent attention (DeepSeek-V2)")
          .integer("kv_rank", &LatentAttention::kv_rank, {0, kMostHidden},
                   "width of the latent of keys and values; 0: ordinary attention")
          .integer("query_rank", &LatentAttention::query_rank, {0, kMostHidden},
                   "width of the queries' latent; 0: straight from hidden")
          .integer("rope_dim", &LatentAttention::rope_dim, {0, kMostHeads},
                   "rotated part of each head")
          .integer("value_dim", &LatentAttention::value_dim, {0, kMostHeads},
                   "size of one value head");
  return table;
}

const FieldTable<Overlap>& transfer_overlap_table() {
  static const FieldTable<Overlap> table =
      FieldTable<Overlap>("overlap", "Which transfers may run beside computation")
          .boolean("gradients", &Overlap::gradients,
                   "gradient reduction beside the last micro-batch's backward")
          .boolean("parameters", &Overlap::parameters,
                   "ZeRO parameter gathers beside the next step's forward")
          .boolean("pipeline", &Overlap::pipeline,
                   "activations are sent without stopping the sender")
          .boolean("tensor", &Overlap::tensor,
                   "tensor collectives beside the next operator, where it does not need them")
          .omit_default()
          .boolean("tensor_pieces", &Overlap::tensor_pieces,
                   "tensor collectives in pieces beside the matrix products around them")
          .omit_default()
          .boolean("context", &Overlap::context,
                   "ring attention: the next keys and values beside the block at work")
          .omit_default()
          .boolean("experts", &Overlap::experts,
                   "dispatch and combine beside the other micro-batch's computation")
          .omit_default();
  return table;
}

const FieldTable<ExpertPlan>& expert_plan_table() {
  static const FieldTable<ExpertPlan> table =
      FieldTable<ExpertPlan>("plan_experts", "What is done with the tokens of a mixture's experts")
          .integer("tp", &ExpertPlan::tp, {0, kMostRanks}, "tensor ranks that share one expert")
          .default_note("as the plan's tp")
          .number("capacity", &ExpertPlan::capacity, {0, 1e6},
                  "tokens an expert takes, as a multiple of the mean; 0: all that come")
          .boolean("pad", &ExpertPlan::pad, "buffers are padded up to the capacity")
          .integer("node_limit", &ExpertPlan::node_limit, {0, kMostRanks},
                   "nodes that a token's experts may lie on; 0: all");
  return table;
}

const FieldTable<Updates>& updates_table() {
  static const FieldTable<Updates> table =
      FieldTable<Updates>("updates", "How the gradients of replicas become one update")
          .choice("aggregation", &Updates::aggregation, aggregation_names(), "who combines them")
          .choice("synchrony", &Updates::synchrony, synchrony_names(), "who waits for whom")
          .choice("weighting", &Updates::weighting, weighting_names(), "what a replica counts for")
          .integer("servers", &Updates::servers, {1, kMostRanks},
                   "parameter servers, each with a share of the weights")
          .integer("staleness", &Updates::staleness, {0, 1'000'000},
                   "bounded-stale: steps ahead of the slowest")
          .integer("period", &Updates::period, {1, 1'000'000}, "local SGD: steps between averages")
          .integers("reliability", &Updates::reliability, {0, 1'000'000}, {0, kMostRanks},
                    "relative weight of each replica")
          .omit_default();
  return table;
}

const FieldTable<Offload>& offload_table() {
  static const FieldTable<Offload> table =
      FieldTable<Offload>("offload", "What lies in host memory and crosses PCIe")
          .boolean("optimizer", &Offload::optimizer, "optimizer states, updated by the host")
          .boolean("gradients", &Offload::gradients, "sums of gradients")
          .number("activations", &Offload::activations, {0, 1}, "share of saved activations");
  return table;
}

const FieldTable<Fp8Recipe>& fp8_table() {
  static const FieldTable<Fp8Recipe> table =
      FieldTable<Fp8Recipe>("fp8", "Which products of an fp8 plan are fp8, and how they are scaled")
          .choice("scaling", &Fp8Recipe::scaling, fp8_scaling_names(), "who shares a scale")
          .boolean("weight_gradient", &Fp8Recipe::weight_gradient, "weight gradients in fp8 too")
          .boolean("attention_output", &Fp8Recipe::attention_output,
                   "the projection after attention in fp8 too")
          .boolean("gathers", &Fp8Recipe::gathers, "ZeRO-3 and sequence-parallel gathers move fp8")
          .integer("bf16_ends", &Fp8Recipe::bf16_ends, {0, kMostLayers},
                   "first and last layers that stay bf16");
  return table;
}

const FieldTable<ActivationStore>& activation_store_table() {
  static const FieldTable<ActivationStore> table =
      FieldTable<ActivationStore>("activation_store",
                                  "Activations saved in fewer bits than they are computed with")
          .choice("ffn_activation", &ActivationStore::ffn_activation, stored_as_names(),
                  "inputs of activation functions")
          .choice("attention_result", &ActivationStore::attention_result, stored_as_names(),
                  "results of attention, for its backward and the projection's");
  return table;
}

const FieldTable<Documents>& documents_table() {
  static const FieldTable<Documents> table =
      FieldTable<Documents>("documents", "Lengths of the documents that sequences are packed from")
          .quantity("mean_tokens", &Documents::mean_tokens, Dimension::Count, {0, 1e9},
                    "mean length; 0: sequences are whole documents")
          .quantity("deviation_tokens", &Documents::deviation_tokens, Dimension::Count, {0, 1e9},
                    "standard deviation; 0: all are alike")
          .choice("distribution", &Documents::distribution, length_distribution_names(),
                  "how lengths are spread about their mean")
          .choice("packing", &Documents::packing, packing_names(),
                  "whether a sequence's end cuts a document, or it begins the next sequence whole")
          .text("lengths_file", &Documents::lengths_file,
                "a file with one length a line, instead of a distribution")
          .integer("seed", &Documents::seed, {0, 2e9},
                   "of the drawing; with a file, which of its steps is taken");
  return table;
}

const FieldTable<Routing>& routing_table() {
  static const FieldTable<Routing> table =
      FieldTable<Routing>("routing", "How unevenly a router deals tokens out to experts")
          .number("imbalance", &Routing::imbalance, {1, 1e6},
                  "tokens of the busiest expert rank over the mean")
          .integer("seed", &Routing::seed, {0, 2e9}, "of the drawing");
  return table;
}

const FieldTable<Spread>& spread_table() {
  static const FieldTable<Spread> table =
      FieldTable<Spread>("spread", "Ordinary differences between GPUs of one kind")
          .number("deviation", &Spread::deviation, {0, 1},
                  "relative standard deviation of the time they take for the same work; 0: none")
          .integer("seed", &Spread::seed, {0, 2e9}, "of the drawing");
  return table;
}

}  // namespace rehearse
