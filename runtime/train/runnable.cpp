#include "runtime/train/runnable.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "runtime/train/sequence_tables.h"

namespace rehearse {
namespace {

class Reasons {
 public:
  explicit Reasons(std::vector<std::string>& out) : out_(out) {}
  void unless(bool condition, std::string sentence) {
    if (!condition) out_.push_back(std::move(sentence));
  }

 private:
  std::vector<std::string>& out_;
};

std::string number(std::int64_t value) { return std::to_string(value); }

void model_reasons(const PlanFile& file, Reasons& reasons) {
  const Model& model = file.model;
  const int tp = file.plan.tp;
  reasons.unless(model.experts.count == 0, "model: mixtures of experts are not trained yet");
  reasons.unless(model.latent.kv_rank == 0, "model: latent attention is not trained yet");
  reasons.unless(model.mtp_layers == 0,
                 "model/mtp_layers: modules that predict further tokens are not trained yet");
  reasons.unless(model.window == 0 || model.window >= file.workload.seq_len,
                 "model: attention in a sliding window is not trained yet");
  reasons.unless(model.heads % tp == 0 && model.kv_heads % tp == 0,
                 "plan/tp: " + number(model.heads) + " heads and " + number(model.kv_heads) +
                     " key/value heads do not divide among " + number(tp) + " tensor ranks");
  reasons.unless(model.ffn % tp == 0, "plan/tp: a feed-forward width of " + number(model.ffn) +
                                          " does not divide among " + number(tp) + " tensor ranks");
  reasons.unless(
      model.positions != Positions::Learned || file.workload.seq_len <= model.max_seq_len,
      "workload/seq_len: " + number(file.workload.seq_len) + " tokens are more than the model's " +
          number(model.max_seq_len) + " learned positions");
  reasons.unless(model.positions != Positions::Rotary || model.head_dim % 2 == 0,
                 "model/head_dim: an odd size cannot be rotated in pairs");
}

void layout_reasons(const PlanFile& file, Reasons& reasons) {
  const Plan& plan = file.plan;
  reasons.unless(plan.ep == 1, "plan/ep: expert parallelism is not trained yet");
  reasons.unless(plan.tensor_rows == 1,
                 "plan/tensor_rows: tensor parallelism by blocks is not trained yet");
  reasons.unless(plan.zero <= 1, "plan/zero: only ZeRO-1 is trained");
  const int pieces = plan.cp * (holds_two_pieces(plan) ? 2 : 1);
  reasons.unless(file.workload.seq_len % pieces == 0,
                 "plan/cp: sequences of " + number(file.workload.seq_len) +
                     " tokens do not divide into the " + number(pieces) + " pieces of " +
                     number(plan.cp) + " context ranks");
  const std::int64_t rows = std::int64_t{plan.micro_batch} * file.workload.seq_len / plan.cp;
  reasons.unless(!plan.sequence_parallel || rows % plan.tp == 0,
                 "plan/sequence_parallel: " + number(rows) + " tokens do not divide among " +
                     number(plan.tp) + " tensor ranks");
  const int shares = plan.cp * plan.tp;
  reasons.unless(plan.cp == 1 || plan.context == ContextKind::Ring ||
                     (file.model.heads % shares == 0 && file.model.kv_heads % shares == 0),
                 "plan/context: " + number(file.model.heads) + " heads and " +
                     number(file.model.kv_heads) + " key/value heads do not divide among " +
                     number(shares) + " tensor and context ranks, as all-to-alls need");
  reasons.unless(
      plan.batch_split == BatchSplit::Even || !plan.replica_micro_batches.empty(),
      "plan/batch_split: shares by speed are trained as `rehearse run --plan-out` writes "
      "them, in replica_micro_batches");
  reasons.unless(plan.rebalance_every == 0,
                 "plan/rebalance_every: shares of the batch stay as they are in a real run");
  reasons.unless(plan.updates == Updates{},
                 "plan/updates: only synchronous all-reduced updates are trained");
  reasons.unless(plan.stage_placement == Deal::RoundRobin,
                 "plan/stage_placement: chunks are dealt out in order in a real run");
}

void arithmetic_reasons(const PlanFile& file, Reasons& reasons) {
  const Plan& plan = file.plan;
  reasons.unless(plan.precision == Precision::Fp32 || plan.precision == Precision::Bf16,
                 "plan/precision: fp32 and bf16 are trained");
  reasons.unless(plan.gradient_precision == Precision::Fp32,
                 "plan/gradient_precision: gradients are fp32 in a real run");
  reasons.unless(plan.moment_precision == Precision::Fp32,
                 "plan/moment_precision: Adam's moments are fp32 in a real run");
  reasons.unless(plan.store == ActivationStore{},
                 "plan/activation_store: activations are kept as they are in a real run");
  reasons.unless(plan.dropout == 0, "plan/dropout: there is none in a real run");
  reasons.unless(plan.attention == AttentionKernel::Flash,
                 "plan/attention: flash attention is what is trained");
  reasons.unless(plan.recompute != Recompute::Operators,
                 "plan/recompute: layers are repeated whole in a real run, not by operator");
  reasons.unless(plan.recompute_operators.empty(),
                 "plan/recompute_operators: layers are repeated whole in a real run");
  reasons.unless(plan.offload == Offload{}, "plan/offload: nothing is offloaded in a real run");
}

}  // namespace

std::vector<std::string> why_not_runnable(const PlanFile& file) {
  std::vector<std::string> out;
  Reasons reasons(out);
  model_reasons(file, reasons);
  layout_reasons(file, reasons);
  arithmetic_reasons(file, reasons);
  return out;
}

std::optional<PlanFile> read_runnable_plan(const std::string& path, bool tells) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  Problems problems;
  std::optional<PlanFile> file = read_plan_file(text, path, problems);
  if (!file) {
    if (tells) std::cerr << problems.text();
    return std::nullopt;
  }
  const std::vector<std::string> reasons = why_not_runnable(*file);
  if (reasons.empty()) {
    // Whatever program the plan was made for: here it is this one that runs it.
    file->plan.framework = Framework::Rehearse;
    return file;
  }
  if (tells)
    for (const std::string& reason : reasons) std::cerr << path << ": error: /" << reason << '\n';
  return std::nullopt;
}

}  // namespace rehearse
