#include "strategies/check_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "plan/document_lengths.h"
#include "plan/mixture.h"
#include "plan/plan_schedule.h"
#include "strategies/check_experts.h"

namespace rehearse {
namespace {

/// Collects the reasons, one group of fields after the other. Later groups assume what earlier
/// ones established, so `sound` says whether to go on.
class PlanChecker {
 public:
  PlanChecker(const Plan& plan, const Model& model, const Workload& workload, int gpus)
      : plan_(plan),
        model_(model),
        workload_(workload),
        gpus_(gpus),
        seq_len_(workload.seq_len > 0 ? workload.seq_len : model.max_seq_len) {}

  std::vector<PlanFault> run() {
    check_ranges();
    if (!faults_.empty()) return std::move(faults_);
    check_supported();
    check_recompute();
    check_fp8();
    check_store();
    check_offload();
    check_updates();
    check_ranks();
    check_rank_order();
    check_model_split();
    if (plan_.tensor_rows > 1) check_grid();
    for (PlanFault& fault : expert_faults(plan_, model_)) faults_.push_back(std::move(fault));
    check_sequence();
    check_layers();
    check_batch();
    return std::move(faults_);
  }

 private:
  void add(const char* pointer, std::string message, std::string hint = {}) {
    faults_.push_back({pointer, std::move(message), std::move(hint)});
  }

  void check_ranges() {
    const auto at_least_one = [&](const char* pointer, const char* what, std::int64_t value) {
      if (value < 1) add(pointer, fmt::format("{} must be at least 1, not {}", what, value));
    };
    // A cluster too small for tp·cp·pp leaves dp at 1, so 0 means that nobody resolved the plan.
    at_least_one("/dp", "the number of data-parallel replicas", plan_.dp);
    at_least_one("/tp", "the number of tensor-parallel ranks", plan_.tp);
    at_least_one("/cp", "the number of context-parallel ranks", plan_.cp);
    at_least_one("/pp", "the number of pipeline stages", plan_.pp);
    at_least_one("/ep", "the number of expert-parallel ranks", plan_.ep);
    at_least_one("/virtual_stages", "the number of model chunks of a stage", plan_.virtual_stages);
    at_least_one("/micro_batch", "the number of sequences of a micro-batch", plan_.micro_batch);
    if (plan_.zero < 0) add("/zero", fmt::format("there is no ZeRO stage {}", plan_.zero));
    if (!(plan_.dropout >= 0 && plan_.dropout < 1))
      add("/dropout", fmt::format("a dropout of {} is not a share of activations", plan_.dropout),
          "0 or more and less than 1");
    if (!(plan_.bucket_bytes >= 0 && std::isfinite(plan_.bucket_bytes)))
      add("/bucket", "a gradient bucket cannot have a negative or endless size",
          "0 lets the program choose");
  }

  void check_supported() {
    if (plan_.zero > 3) {
      add("/zero", fmt::format("there is no ZeRO stage {}", plan_.zero), "0, 1, 2 or 3");
    } else if (plan_.shard > 0 && plan_.zero < 2) {
      add("/shard",
          fmt::format("shards of {} data ranks need gradients or weights to be sharded",
                      plan_.shard),
          "\"zero\": 2 or 3");
    } else if (plan_.shard > 0 && plan_.dp % plan_.shard != 0) {
      add("/shard",
          fmt::format("{} data ranks cannot be divided into shards of {}", plan_.dp, plan_.shard),
          "a divisor of dp");
    }
    if (plan_.cp > 1) check_context();
    if (workload_.documents != Documents()) {
      std::string fault = documents_fault(workload_.documents, seq_len_, workload_.global_batch);
      if (!fault.empty()) add("", std::move(fault), "\"documents\" of the workload");
    }
    check_later();
    if (plan_.gradient_precision == Precision::Fp8)
      add("/gradient_precision", "gradients cannot be summed in fp8", "fp32 or bf16");
  }

  void check_context() {
    if (plan_.attention == AttentionKernel::Plain)
      add("/attention", "context ranks join partial results by what flash attention keeps",
          "\"attention\": \"flash\"");
    const bool ring = plan_.context == ContextKind::Ring;
    const int pieces = plan_.cp * (ring && plan_.context_balanced ? 2 : 1);
    if (seq_len_ % pieces != 0)
      add("/cp",
          fmt::format("sequences of {} tokens do not divide into the {} pieces of {} context ranks",
                      seq_len_, pieces, plan_.cp),
          fmt::format("a sequence length that is a multiple of {}", pieces));
    if (ring) return;
    const int ranks = plan_.cp * plan_.tp;
    const auto divides = [&](const char* what, int size) {
      if (size % ranks == 0) return;
      add("/cp",
          fmt::format("all-to-all attention gives each of {} tensor and context ranks a share of "
                      "the {}, and {} has {}",
                      ranks, what, model_.name, size),
          "\"context\": \"ring\" shares out tokens instead");
    };
    divides("heads", model_.heads);
    if (model_.kv_heads != model_.heads) divides("key/value heads", model_.kv_heads);
  }

  /// What a plan can say and lowering does not yet simulate is refused, never left out silently.
  void check_later() {
    const auto refuse = [&](bool asked, const char* pointer, const char* what) {
      if (asked) add(pointer, fmt::format("{} is not simulated yet", what));
    };
    refuse(is_latent(model_) && plan_.recompute == Recompute::Operators, "/recompute",
           "recomputation by operator of latent attention");
  }

  void check_recompute() {
    if (plan_.recompute_layers >= 0 && plan_.recompute == Recompute::None)
      add("/recompute_layers", "layers are named that recompute, but nothing is recomputed",
          "\"recompute\": \"full\" or \"selective\"");
    if (plan_.recompute_operators.empty()) return;
    if (plan_.recompute != Recompute::Selective)
      add("/recompute_operators", "operators are named that only selective recomputation repeats",
          "\"recompute\": \"selective\"");
    static const std::vector<std::string> known{"attention", "norm", "ffn", "ffn-activation",
                                                "latent-up"};
    for (std::size_t i = 0; i < plan_.recompute_operators.size(); ++i)
      if (std::find(known.begin(), known.end(), plan_.recompute_operators[i]) == known.end())
        add("/recompute_operators",
            fmt::format("\"{}\" cannot be repeated by itself", plan_.recompute_operators[i]),
            "attention, norm, ffn, ffn-activation or latent-up");
  }

  void check_updates() {
    const Updates& updates = plan_.updates;
    if (plan_.ep > 1 && (updates.aggregation != Aggregation::AllReduce || plan_.offload.optimizer ||
                         plan_.offload.gradients))
      add("/ep",
          "experts spread over data ranks are updated by these ranks alone: servers, "
          "averages and updates by the host are not simulated beside them",
          "\"ep\": 1, or all-reduce and no offload of optimizer or gradients");
    if (plan_.cp > 1 && updates.aggregation != Aggregation::AllReduce)
      add("/cp",
          "context ranks reduce their gradients in every step: servers and averages are not "
          "simulated beside them",
          "\"aggregation\": \"all-reduce\"");
    const bool servers = updates.aggregation == Aggregation::ParameterServer;
    if (!servers && updates.synchrony != Synchrony::Synchronous)
      add("/updates/synchrony",
          "replicas that exchange gradients or weights among themselves wait "
          "for each other",
          "\"aggregation\": \"parameter-server\"");
    if (updates.aggregation != Aggregation::AllReduce && plan_.zero > 0)
      add("/zero",
          servers ? "parameter servers already hold the optimizer state that ZeRO shards"
                  : "replicas that train alone between averages need whole states",
          "\"zero\": 0");
    if (servers && plan_.offload != Offload())
      add("/offload", "parameter servers update in host memory already", "leave out offload");
    if (servers && updates.servers > gpus_)
      add("/updates/servers", fmt::format("{} servers are more than the {} GPUs whose NICs they "
                                          "could use",
                                          updates.servers, gpus_));
    if (updates.weighting != Weighting::Reliability) {
      if (!updates.reliability.empty())
        add("/updates/reliability", "reliabilities are given, and weights do not follow them",
            "\"weighting\": \"reliability\"");
    } else if (static_cast<int>(updates.reliability.size()) != plan_.dp) {
      add("/updates/reliability",
          fmt::format("{} reliabilities for {} replicas", updates.reliability.size(), plan_.dp),
          "one for each data rank");
    } else if (std::accumulate(updates.reliability.begin(), updates.reliability.end(),
                               std::int64_t{0}) <= 0) {
      add("/updates/reliability", "nobody's gradients would count");
    }
  }

  void check_offload() {
    const Offload& offload = plan_.offload;
    if (!(offload.activations >= 0 && offload.activations <= 1))
      add("/offload/activations",
          fmt::format("{} is not a share of activations", offload.activations));
    if (!offload.gradients) return;
    if (!offload.optimizer)
      add("/offload/gradients", "gradients in host memory are for an optimizer there",
          "\"optimizer\": true");
    if (plan_.dp > 1 && (plan_.zero < 2 || !plan_.reduce_every_micro_batch))
      add("/offload/gradients",
          "data ranks reduce whole gradients at the step's end, and hold them on their GPUs "
          "until then",
          "\"zero\": 2 or 3 with \"reduce_every_micro_batch\"");
  }

  void check_fp8() {
    if (plan_.fp8 == Fp8Recipe()) return;
    if (plan_.precision != Precision::Fp8)
      add("/fp8", "an fp8 recipe means nothing in another precision", "\"precision\": \"fp8\"");
    if (2 * plan_.fp8.bf16_ends > model_.layers)
      add("/fp8/bf16_ends", fmt::format("{} layers at each end are more than the {} of {}",
                                        plan_.fp8.bf16_ends, model_.layers, model_.name));
  }

  void check_store() {
    if (plan_.store == ActivationStore()) return;
    const bool all_recompute = plan_.recompute_layers < 0;
    if (all_recompute &&
        (plan_.recompute == Recompute::Full || plan_.recompute == Recompute::Operators))
      add("/activation_store",
          "layers that are repeated from what they keep of products do not keep these activations",
          "\"recompute\": \"none\" or \"selective\"");
    const auto& parts = plan_.recompute_operators;
    const bool repeats_ffn = std::find(parts.begin(), parts.end(), "ffn") != parts.end();
    if (plan_.store.ffn_activation != StoredAs::Computed && repeats_ffn && all_recompute)
      add("/activation_store/ffn_activation",
          "a feed-forward block that is repeated keeps no input of its activation function",
          "\"recompute_operators\" with ffn-activation instead of ffn");
  }

  void check_ranks() {
    const auto too_large = [&](const char* pointer, const char* group, int size) {
      if (size > gpus_)
        add(pointer, fmt::format("a {} of {} ranks is larger than the cluster of {} GPUs", group,
                                 size, gpus_));
    };
    const std::size_t before = faults_.size();
    too_large("/tp", "tensor group", plan_.tp);
    too_large("/cp", "context group", plan_.cp);
    too_large("/pp", "pipeline", plan_.pp);
    too_large("/dp", "data group", plan_.dp);
    if (faults_.size() > before) return;
    const std::int64_t slice = static_cast<std::int64_t>(plan_.tp) * plan_.cp * plan_.pp;
    const std::int64_t needed = slice * plan_.dp;
    if (needed == gpus_) return;
    const std::string product = fmt::format("dp·tp·cp·pp = {}·{}·{}·{} = {} ranks", plan_.dp,
                                            plan_.tp, plan_.cp, plan_.pp, needed);
    if (needed > gpus_) {
      add("/dp", fmt::format("{} do not fit on {} GPUs", product, gpus_),
          slice <= gpus_ ? fmt::format("\"dp\": {} at most", gpus_ / slice)
                         : fmt::format("tp·cp·pp alone is {}", slice));
    } else if (gpus_ % slice == 0) {
      add("/dp", fmt::format("{} leave {} of the {} GPUs idle", product, gpus_ - needed, gpus_),
          fmt::format("\"dp\": {}, or leave it out", gpus_ / slice));
    } else {
      add("/tp",
          fmt::format("tp·cp·pp = {} does not divide the {} GPUs of the cluster", slice, gpus_),
          "choose tp and pp whose product divides the number of GPUs");
    }
  }

  void check_rank_order() {
    std::array<Axis, kAxisCount> sorted = plan_.rank_order;
    std::sort(sorted.begin(), sorted.end());
    for (int i = 0; i < kAxisCount; ++i)
      if (static_cast<int>(sorted[static_cast<std::size_t>(i)]) != i)
        return add("/rank_order", "the rank order must name each axis once",
                   "\"tp-cp-dp-pp\" in any order");
  }

  /// Sizes that tensor ranks share evenly.
  void check_model_split() {
    const auto divides = [&](const char* what, int size) {
      if (size % plan_.tp != 0)
        add("/tp",
            fmt::format("{} tensor ranks cannot share the {} {} of {} evenly", plan_.tp, size, what,
                        model_.name),
            fmt::format("tp must divide {}", size));
    };
    divides("attention heads", model_.heads);
    if (model_.kv_heads != model_.heads) divides("key/value heads", model_.kv_heads);
    if (model_.experts.count == 0 || model_.experts.leading_dense > 0)
      divides("feed-forward columns", model_.ffn);
  }

  /// Weights in blocks over a grid of tensor ranks.
  void check_grid() {
    const int rows = plan_.tensor_rows;
    const auto refuse = [&](bool asked, const char* pointer, const char* why, const char* hint) {
      if (asked) add(pointer, fmt::format("weights cut by blocks: {}", why), hint);
    };
    if (plan_.tp % rows != 0)
      return add("/tensor_rows",
                 fmt::format("{} tensor ranks do not make a grid of {} rows", plan_.tp, rows),
                 fmt::format("a divisor of tp, {}", plan_.tp));
    if (model_.hidden % rows != 0)
      add("/tensor_rows", fmt::format("{} rows cannot share the hidden size {} of {} evenly", rows,
                                      model_.hidden, model_.name));
    refuse(is_latent(model_), "/tensor_rows",
           "the products of latent attention into its narrow layers have no such cut",
           "\"tensor_rows\": 1");
    refuse(model_.mtp_layers > 0, "/tensor_rows",
           "the product of a module that predicts a further token has no such cut",
           "\"tensor_rows\": 1");
    refuse(model_.experts.count > 0, "/tensor_rows",
           "experts lie on one tensor rank or on all, not on blocks of them", "\"tensor_rows\": 1");
    refuse(plan_.overlap.tensor_pieces, "/overlap/tensor_pieces",
           "a product waits for both its gather and its sum, and pieces of one alone hide nothing",
           "\"tensor_pieces\": false");
    refuse(plan_.recompute == Recompute::Operators, "/recompute",
           "repeating by operator counts products with whole rows or columns",
           "\"recompute\": \"selective\" or \"full\"");
    refuse(!plan_.vocabulary_parallel, "/vocabulary_parallel",
           "each rank has a block of the vocabulary's table too", "\"vocabulary_parallel\": true");
  }

  void check_sequence() {
    const int shares = plan_.tp / plan_.tensor_rows * plan_.cp;
    if (plan_.sequence_parallel && seq_len_ % shares != 0)
      add("/sequence_parallel",
          fmt::format("sequences of {} tokens do not divide among {} tensor{} ranks", seq_len_,
                      shares, plan_.cp > 1 ? " and context" : ""),
          fmt::format("a sequence length that is a multiple of {}", shares));
    if (model_.positions == Positions::Learned && seq_len_ > model_.max_seq_len)
      add("", fmt::format("{} has learned positions for {} tokens, and the workload's sequences "
                          "have {}",
                          model_.name, model_.max_seq_len, seq_len_));
  }

  void check_layers() {
    const int chunks = plan_.pp * plan_.virtual_stages;
    if (!plan_.layer_split.empty()) return check_layer_split(chunks);
    if (plan_.balanced_split) check_no_slots();
    // A balanced split may leave the ends without a layer: they have the embedding and the head.
    const int ends = plan_.balanced_split ? 2 : plan_.embedding_slot + plan_.loss_slot;
    const int slots = model_.layers + (chunks > 1 ? ends : 0);
    if (chunks <= slots) return;
    const std::string pieces =
        plan_.virtual_stages == 1
            ? fmt::format("{} pipeline stages", plan_.pp)
            : fmt::format("{} stages of {} model chunks", plan_.pp, plan_.virtual_stages);
    add(plan_.pp > slots ? "/pp" : "/virtual_stages",
        fmt::format("{} are more than the {} layers of {}", pieces, model_.layers, model_.name),
        fmt::format("pp · virtual_stages of at most {}", slots));
  }

  void check_no_slots() {
    if (plan_.embedding_slot || plan_.loss_slot)
      add("/layer_split",
          "slots for embedding and loss shape the even split and mean nothing beside a given one",
          "leave out layer_split, or embedding_slot and loss_slot");
  }

  void check_layer_split(int chunks) {
    const std::vector<int>& split = plan_.layer_split;
    check_no_slots();
    if (static_cast<int>(split.size()) != chunks)
      return add(
          "/layer_split",
          fmt::format("the layer split has {} entries for {} model chunks", split.size(), chunks),
          "one entry for each of pp · virtual_stages chunks, in model order");
    // A chunk without layers makes sense only where it holds the embedding or the head.
    for (std::size_t i = 0; i < split.size(); ++i) {
      const bool is_end = i == 0 || i + 1 == split.size();
      if (split[i] < (is_end ? 0 : 1))
        add("/layer_split",
            fmt::format("chunk {} of the layer split cannot have {} layers", i, split[i]));
    }
    const std::int64_t total = std::accumulate(split.begin(), split.end(), std::int64_t{0});
    if (total != model_.layers)
      add("/layer_split", fmt::format("the layer split adds up to {} layers, and {} has {}", total,
                                      model_.name, model_.layers));
  }

  bool has_uneven_batch() const {
    return !plan_.replica_micro_batches.empty() || plan_.batch_split != BatchSplit::Even ||
           plan_.rebalance_every > 0;
  }

  /// Replicas with different numbers of micro-batches.
  void check_uneven_batch() {
    const char* const pointer = !plan_.replica_micro_batches.empty() ? "/replica_micro_batches"
                                : plan_.rebalance_every > 0          ? "/rebalance_every"
                                                                     : "/batch_split";
    const bool meets = plan_.zero == 3 || (plan_.zero == 2 && plan_.reduce_every_micro_batch);
    if (meets || plan_.ep > 1)
      add(pointer,
          fmt::format("replicas that {} in every micro-batch have the same number of them",
                      plan_.ep > 1 ? "exchange tokens of experts" : "share weights or gradients"),
          plan_.ep > 1 ? "\"ep\": 1" : "\"zero\": 0 or 1");
    if (plan_.updates.synchrony != Synchrony::Synchronous)
      add(pointer,
          "replicas at their own pace take as many steps as they can: nothing is shared out",
          "\"synchrony\": \"synchronous\"");
    if (!plan_.actions.empty())
      add("/actions", "an explicit order of work has one number of micro-batches for all replicas",
          "name a schedule instead");
    const std::int64_t count = workload_.global_batch / plan_.micro_batch;
    if (workload_.global_batch % plan_.micro_batch != 0 || count < plan_.dp)
      return add("/micro_batch",
                 fmt::format("a global batch of {} sequences does not divide into micro-batches of "
                             "{}, at least one for each of {} replicas",
                             workload_.global_batch, plan_.micro_batch, plan_.dp));
    if (plan_.replica_micro_batches.empty()) return check_any_share(pointer, count);
    check_given_shares(count);
  }

  void check_given_shares(std::int64_t count) {
    const std::vector<int>& shares = plan_.replica_micro_batches;
    if (static_cast<int>(shares.size()) != plan_.dp)
      return add("/replica_micro_batches",
                 fmt::format("{} numbers for {} replicas", shares.size(), plan_.dp));
    std::set<int> different(shares.begin(), shares.end());
    if (*different.begin() < 1)
      return add("/replica_micro_batches", "every replica works on a micro-batch at least");
    const std::int64_t sum = std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
    if (sum != count)
      return add("/replica_micro_batches",
                 fmt::format("the micro-batches of all replicas are {}, and a global batch of {} "
                             "sequences has {}",
                             sum, workload_.global_batch, count));
    for (const int share : different)
      for (ScheduleFault& fault : plan_schedule_faults(plan_, share))
        add(fault.pointer.c_str(), std::move(fault.message), std::move(fault.hint));
  }

  /// The schedule must be possible with whatever number a replica gets.
  void check_any_share(const char* pointer, std::int64_t count) {
    if (plan_.batch_split == BatchSplit::Even && count % plan_.dp != 0)
      add("/micro_batch",
          fmt::format(
              "{} micro-batches do not divide among {} replicas before the first rebalancing",
              count, plan_.dp),
          "\"batch_split\": \"by-speed\"");
    constexpr int kLookedAt = 3;  // a rule of whole multiples shows in any three numbers in a row
    const auto usual = static_cast<int>(std::min<std::int64_t>(count / plan_.dp, 1'000'000));
    for (int share = usual; share < usual + kLookedAt; ++share)
      if (!plan_schedule_faults(plan_, share).empty())
        return add(pointer, "the schedule does not take every number of micro-batches",
                   "1f1b, gpipe or layer-wise with one chunk a stage");
  }

  void check_batch() {
    if (has_uneven_batch()) return check_uneven_batch();
    const std::int64_t per_round = static_cast<std::int64_t>(plan_.dp) * plan_.micro_batch;
    if (workload_.global_batch % per_round != 0 || workload_.global_batch < per_round)
      return add("/micro_batch",
                 fmt::format("a global batch of {} sequences does not divide into micro-batches of "
                             "{} on {} replicas",
                             workload_.global_batch, plan_.micro_batch, plan_.dp),
                 fmt::format("a global batch that is a multiple of {}", per_round));
    const std::int64_t count = workload_.global_batch / per_round;
    constexpr std::int64_t kMostMicroBatches = 1'000'000;
    if (count > kMostMicroBatches)
      return add("/micro_batch",
                 fmt::format("{} micro-batches a step are more than the {} that can be scheduled",
                             count, kMostMicroBatches));
    for (ScheduleFault& fault : plan_schedule_faults(plan_, static_cast<int>(count)))
      add(fault.pointer.c_str(), std::move(fault.message), std::move(fault.hint));
  }

  const Plan& plan_;
  const Model& model_;
  const Workload& workload_;
  int gpus_;
  int seq_len_;
  std::vector<PlanFault> faults_;
};

}  // namespace

Plan resolve(Plan plan, int gpus) {
  const std::int64_t slice = static_cast<std::int64_t>(plan.tp) * plan.cp * plan.pp;
  if (plan.dp == 0 && slice > 0)
    plan.dp = static_cast<int>(std::max<std::int64_t>(1, gpus / slice));
  // One tensor rank has nobody to share a sequence with, and replicated weights are not gathered.
  if (plan.tp == 1) plan.sequence_parallel = false;
  const bool pulls = plan.updates.aggregation == Aggregation::ParameterServer && plan.dp > 1;
  // All-to-alls give every rank whole sequences: nothing is out of balance.
  if (plan.cp == 1 || plan.context == ContextKind::AllToAll) plan.context_balanced = true;
  if (plan.zero == 0 && !pulls) plan.overlap.parameters = false;
  // A way down the pipeline and back has two chunks a stage.
  if (plan.schedule == ScheduleKind::ZbV && plan.virtual_stages == 1) plan.virtual_stages = 2;
  if (plan.bucket_bytes == 0) {
    // Megatron-LM, distributed_data_parallel_config.py: at least 40 M parameters, 1 M a replica.
    const double parameters = std::max(40e6, 1e6 * plan.dp);
    plan.bucket_bytes = parameters * bytes_of(plan.gradient_precision);
  }
  return plan;
}

std::vector<PlanFault> plan_faults(const Plan& plan, const Model& model, const Workload& workload,
                                   int gpus) {
  return PlanChecker(plan, model, workload, gpus).run();
}

}  // namespace rehearse
