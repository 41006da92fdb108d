#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include "kernels/expert_load.h"
#include "strategies/lowering.h"

namespace rehearse {
namespace {

/// "all_reduce among 2, all_gather among 2".
std::string curve_list(const std::vector<CollectiveCurve>& curves) {
  std::string list;
  for (const CollectiveCurve& curve : curves)
    list += fmt::format("{}{} among {}", list.empty() ? "" : ", ",
                        collective_name(curve.collective), curve.ranks);
  return list;
}

}  // namespace

void Lowering::state_update_assumptions() {
  const Updates& updates = plan_.updates;
  auto& say = out_.assumptions;
  if (averages_weights())
    return say.push_back(fmt::format(
        "replicas update alone, and average their weights in {} every {} steps",
        plan_.gradient_precision == Precision::Fp32 ? "fp32" : "16 bits", updates.period));
  say.push_back(fmt::format(
      "{} parameter server{} on the hosts of the first nodes: each holds a share of all weights "
      "and their Adam states, adds up gradients as they come at {:.1f} GB/s of its memory a rank's "
      "piece, and is reached through one GPU's NIC",
      updates.servers, updates.servers == 1 ? "" : "s", server_bytes_per_s() * 1e-9));
  if (updates.synchrony == Synchrony::Synchronous)
    say.push_back("servers update when they have the gradients of all replicas");
  else if (updates.synchrony == Synchrony::Asynchronous)
    say.push_back("servers apply each replica's gradients by themselves, and nobody waits");
  else
    say.push_back(
        fmt::format("servers apply each replica's gradients by themselves, and no "
                    "replica is more than {} steps ahead of the slowest",
                    updates.staleness));
}

void Lowering::state_data_assumptions() {
  if (data_ranks() == 1) return;
  if (has_servers() || averages_weights()) return state_update_assumptions();
  auto& say = out_.assumptions;
  const char* precision = plan_.gradient_precision == Precision::Fp32 ? "fp32" : "16 bits";
  const bool at_once = plan_.zero >= 2 && plan_.reduce_every_micro_batch;
  say.push_back(fmt::format("gradients are reduced in {} {}, {}", precision,
                            plan_.zero == 3 ? "layer by layer"
                                            : fmt::format("in buckets of {:.0f} million parameters",
                                                          bucket_parameters_ / 1e6),
                            !plan_.overlap.gradients ? "and the next work waits for it"
                            : at_once                ? "beside every micro-batch's backward"
                                                     : "beside the last micro-batch's backward"));
  if (plan_.zero == 3)
    say.push_back(fmt::format(
        "weights are gathered {} ahead of use, {}",
        plan_.prefetch == 1 ? "one layer" : fmt::format("{} layers", plan_.prefetch),
        plan_.reshard_after_forward ? "and again for the backward" : "and stay for the backward"));
  else if (plan_.zero > 0)
    say.push_back(plan_.overlap.parameters
                      ? "updated parameters are gathered beside the next step's forward"
                      : "updated parameters are gathered before the next step begins");
}

/// What a plan keeps in fewer bits, and what a model predicts beside the next token.
void Lowering::state_arithmetic() {
  auto& say = out_.assumptions;
  const int modules = in_.model.mtp_layers;
  if (modules > 0)
    say.push_back(fmt::format(
        "{} behind the last layer predict{} further tokens, with a loss each{}",
        modules == 1 ? "a module" : fmt::format("{} modules", modules), modules == 1 ? "s" : "",
        mtp_has_table(in_.model, in_.schedule)
            ? "; the last stage keeps a copy of the embedding, and sums its gradients with the "
              "first"
            : ", and use the embedding and the head of their stage"));
  if (const double capacity = plan_.experts.capacity;
      capacity > 0 && plan_.ep > 1 && in_.model.experts.leading_dense < in_.model.layers) {
    const Experts& experts = in_.model.experts;
    const double dropped = dropped_share(experts.count, plan_.ep, experts.leading_dense,
                                         in_.model.layers, in_.workload.routing, capacity);
    say.push_back(fmt::format(
        "expert ranks take {:.3g} times the mean of tokens at most and drop {:.2g} % of "
        "them{}; FLOPs of the model count dropped ones",
        capacity, 100 * dropped, plan_.experts.pad ? ", filling up with zeros" : ""));
  }
  if (plan_.moment_precision != Precision::Fp32)
    say.push_back(fmt::format("Adam's moments take {} bytes each, master weights 4",
                              bytes_of(plan_.moment_precision)));
  const auto stored = [&](StoredAs store, const char* what) {
    if (store != StoredAs::Computed)
      say.push_back(fmt::format("{} wait for the backward in {} with a scale for 128 elements",
                                what, store == StoredAs::Fp8 ? "fp8" : "12 bits (E5M6)"));
  };
  stored(plan_.store.ffn_activation, "inputs of activation functions");
  stored(plan_.store.attention_result, "results of attention");
  if (plan_.precision == Precision::Fp8 && plan_.fp8.scaling == Fp8Scaling::Block)
    say.push_back(
        "fp8 products have a scale for 1×128 of activations and 128×128 of weights, at the rate "
        "measured with DeepGEMM on H800; what was kept is scaled anew for weight gradients");
}

void Lowering::state_assumptions() {
  auto& say = out_.assumptions;
  const auto& costs = in_.cost_models;
  for (std::size_t g = 0; g < costs.size(); ++g)
    say.push_back(fmt::format(
        "{}: {}", cluster_.spec().groups.empty() ? "GPU" : cluster_.spec().groups[g].node.gpu.name,
        costs[g]->description()));
  for (const CostModel* model : costs)
    if (const std::string curves = curve_list(model->collectives()); !curves.empty())
      say.push_back("collectives inside a node take what was measured: " + curves);
  state_data_assumptions();
  if (plan_.pp > 1)
    say.push_back(plan_.overlap.pipeline ? "stages go on while their sends are under way"
                                         : "a stage waits for its own sends");
  if (plan_.cp > 1)
    say.push_back(plan_.context == ContextKind::AllToAll
                      ? "context ranks exchange tokens for heads around attention, and wait for it"
                      : fmt::format("keys and values go round {} context ranks, {}; {}", plan_.cp,
                                    plan_.overlap.context ? "beside the block at work"
                                                          : "and the next block waits for them",
                                    plan_.context_balanced
                                        ? "each holds an early and a late piece of a sequence"
                                        : "the last has the most to do"));
  if (in_.model.tied_embeddings && !ends_meet(in_.schedule))
    say.push_back("first and last stage each keep the tied embedding and sum its gradients");
  state_arithmetic();
  if (plan_.tensor_rows > 1)
    say.push_back(fmt::format(
        "weights lie in blocks over {} rows and {} columns of tensor ranks, neighbours in a row; "
        "inputs are gathered along one, results summed along the other",
        plan_.tensor_rows, plan_.tp / plan_.tensor_rows));
  if (plan_.tp > 1 && plan_.overlap.tensor)
    say.push_back(
        "in the backward, tensor collectives run beside the product that does not need them, and "
        "slow it by the SMs they hold");
  if (plan_.tp > 1 && plan_.overlap.tensor_pieces)
    say.push_back("gathers and reductions of the split sequence run in pieces beside products");
  if (plan_.offload != Offload()) {
    const HostRates rates = host_rates(cluster_.spec().groups.front().node);
    say.push_back(fmt::format(
        "host memory: copies at {:.1f} GB/s a GPU, its own work at {:.1f} GB/s (80 % of the "
        "nominal bandwidth shared by the node's GPUs)",
        rates.copy_bytes_per_s * 1e-9, rates.memory_bytes_per_s * 1e-9));
  }
  state_documents();
  state_spread();
  say.push_back("link payload: NVLink 82 %, PCIe 85 %, network ports 96 % of the nominal rate");
  if (plan_.pp > 1) {
    // NCCL uses two channels, so two thread blocks, for a transfer to a peer over the network
    // (NCCL 2.28.9, p2p channels per peer).
    const double sms = std::max(1, cluster_.gpu(GpuId{0}).streaming_multiprocessors);
    out_.compute_share[static_cast<std::size_t>(CommKind::Pipeline)] = 2 / sms;
  }
  for (int kind = 0; kind < kCommKindCount; ++kind)
    if (const double share = out_.compute_share[static_cast<std::size_t>(kind)]; share > 0)
      say.push_back(fmt::format("a running {} transfer holds {:.1f} % of a GPU's SMs",
                                comm_kind_name(static_cast<CommKind>(kind)), 100 * share));
  if (options_.collectives == CollectiveDetail::Stepwise)
    say.push_back("ring collectives across nodes are simulated step by step; trees as long flows");
  const auto classes = classes_.members.size();
  if (options_.fidelity == Fidelity::Folded && plan_.dp > 1)
    say.push_back(
        fmt::format("{} replicas behave in {} way{}; one of each was simulated, with the "
                    "traffic of all",
                    plan_.dp, classes, classes == 1 ? "" : "s"));
}

}  // namespace rehearse
