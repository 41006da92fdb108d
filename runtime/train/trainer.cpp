#include "runtime/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "plan/ensure.h"
#include "runtime/train/runnable.h"

namespace rehearse {
namespace {

DType dtype_of(Precision precision) {
  return precision == Precision::Fp32 ? DType::F32 : DType::Bf16;
}

}  // namespace

BatchSpec batch_spec(const PlanFile& file, const TrainOptions& options,
                     std::int64_t corpus_tokens) {
  BatchSpec spec;
  spec.tokens = corpus_tokens;
  spec.seq_len = file.workload.seq_len;
  spec.global_batch = static_cast<int>(file.workload.global_batch);
  spec.replicas = file.plan.dp;
  spec.partition = options.partition;
  spec.seed = options.seed;
  for (const int share : file.plan.replica_micro_batches)
    spec.replica_samples.push_back(share * file.plan.micro_batch);
  return spec;
}

double bucket_parameters(const Plan& plan) {
  if (plan.bucket_bytes > 0) return plan.bucket_bytes / bytes_of(plan.gradient_precision);
  return std::max(40e6, 1e6 * plan.dp);
}

Trainer::Trainer(const PlanFile& file, const TrainOptions& options, World& world,
                 ComputeDevice& device, std::int64_t corpus_tokens, SampleReader reader,
                 std::shared_ptr<TensorPool> pool)
    : file_(file),
      options_(options),
      schedule_(schedule_of(file, RankMap(file.plan).coordinates(Rank{world.rank()}).data)),
      world_(world),
      device_(device),
      reader_(std::move(reader)),
      batches_(batch_spec(file, options, corpus_tokens)),
      rate_(options.rate),
      pool_(pool != nullptr ? std::move(pool) : std::make_shared<TensorPool>(device)) {
  pool_->compute_on(device);
  ensure(why_not_runnable(file_).empty(), "whoever trains a plan has checked it");
  ensure(world.size() == world_size(file_.plan), "the world is as large as the plan");
  groups_ = std::make_unique<RankGroups>(world, file_.plan, schedule_, file_.model.tied_embeddings,
                                         traffic_);
  store_ = std::make_unique<ParameterStore>(*pool_, dtype_of(file_.plan.precision));
  rank_.emplace(RankContext{.model = file_.model,
                            .plan = file_.plan,
                            .seq_len = file_.workload.seq_len,
                            .dtype = dtype_of(file_.plan.precision),
                            .device = device_,
                            .pool = *pool_,
                            .store = *store_,
                            .tensor = *groups_->tensor,
                            .context = *groups_->context});
  make_units();
  store_->build(bucket_parameters(file_.plan),
                file_.plan.zero > 0
                    ? ParameterStore::Shares{groups_->data->size(), groups_->data->rank()}
                    : ParameterStore::Shares{});
  store_->initialise(options_.seed);
  make_chunks();
  const double tokens = tokens_per_step();
  const std::vector<float> scale(static_cast<std::size_t>(rank_->tokens()),
                                 static_cast<float>(1 / tokens));
  loss_scale_ = rank_->wide({rank_->tokens()});
  device_.upload(loss_scale_.view().data, scale.data(), scale.size() * sizeof(float));
}

double Trainer::tokens_per_step() const {
  return static_cast<double>(file_.workload.global_batch) * file_.workload.seq_len;
}

std::size_t Trainer::message_bytes() const {
  return static_cast<std::size_t>(rank_->split_tokens() * file_.model.hidden) *
         element_bytes(rank_->dtype);
}

void Trainer::make_units() {
  const int stage = groups_->at.pipeline, pieces = piece_count(schedule_);
  const TensorSlice slice{groups_->at.tensor, file_.plan.tp};
  std::int32_t embedding = -1, head = -1;
  bool head_is_apart = false;
  for (int chunk = 0; chunk < schedule_.chunks; ++chunk) {
    const int piece = piece_of(schedule_, stage, chunk);
    const int first =
        std::accumulate(file_.layer_split.begin(), file_.layer_split.begin() + piece, 0);
    if (piece == 0)
      embedding = store_->add_unit({.kind = ModelUnit::Embedding, .chunk = chunk, .parameters = {}},
                                   embedding_weights(file_.model, file_.plan, slice));
    const int layers = file_.layer_split[static_cast<std::size_t>(piece)];
    for (int i = 0; i < layers; ++i)
      store_->add_unit({.layer = first + i, .chunk = chunk, .parameters = {}},
                       layer_weights(file_.model, file_.plan, slice, first + i));
    if (piece + 1 < pieces) continue;
    head_is_apart = !file_.model.tied_embeddings || !(pieces == 1 || ends_meet(schedule_));
    head = store_->add_unit({.kind = ModelUnit::Head, .chunk = chunk, .parameters = {}},
                            head_weights(file_.model, file_.plan, slice, head_is_apart));
  }
  if (head >= 0 && !head_is_apart)
    store_->share_parameter(
        head, store_->units()[static_cast<std::size_t>(embedding)].parameters.front());
}

void Trainer::make_chunks() {
  tables_.emplace(*rank_);
  const auto& units = store_->units();
  const int stage = groups_->at.pipeline;
  mail_.emplace(*rank_, schedule_, stage, *groups_->stages, world_.moves_on_device());
  sync_.emplace(*rank_, *groups_, schedule_, stage);
  optimizer_.emplace(*rank_, *groups_, *sync_, options_.adam);
  for (int chunk = 0; chunk < schedule_.chunks; ++chunk) {
    const auto belongs = [&](const Unit& unit) { return unit.chunk == chunk; };
    const auto first = std::find_if(units.begin(), units.end(), belongs);
    const auto end = std::find_if_not(first, units.end(), belongs);
    chunks_.emplace_back(*rank_, *tables_, static_cast<std::int32_t>(first - units.begin()),
                         static_cast<std::int32_t>(end - units.begin()));
    chunks_.back().set_hooks(
        {.before_forward = [this](std::int32_t unit) { sync_->await_weights(unit); },
         .gradients_done = [this](std::int32_t unit) { sync_->unit_done(unit); },
         .at_work =
             [this](std::int32_t unit) {
               if (on_unit) on_unit(store_->units()[static_cast<std::size_t>(unit)]);
             }});
  }
}

MicroBatch Trainer::read_micro_batch(int micro_batch) {
  const auto rows = static_cast<std::size_t>(rank_->tokens());
  std::vector<std::int32_t> tokens(rows), labels(rows);
  std::size_t row = 0;
  for (int i = 0; i < file_.plan.micro_batch; ++i) {
    const std::int64_t sample =
        samples_[static_cast<std::size_t>(micro_batch * file_.plan.micro_batch + i)];
    for (const TokenRange& range : tables_->ranges) {
      const auto count = static_cast<std::size_t>(range.length());
      reader_(sample, range, std::span(tokens).subspan(row, count),
              std::span(labels).subspan(row, count));
      row += count;
    }
  }
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= file_.model.vocab)
      throw std::runtime_error("the corpus holds token " + std::to_string(token) +
                               ", but the model's vocabulary has " +
                               std::to_string(file_.model.vocab));
  return {int_tensor(*pool_, tokens), int_tensor(*pool_, labels)};
}

const MicroBatch& Trainer::data_of(int micro_batch) {
  const auto found = data_.find(micro_batch);
  if (found != data_.end()) return found->second;
  return data_.emplace(micro_batch, read_micro_batch(micro_batch)).first->second;
}

void Trainer::execute(const Action& action) {
  world_.pace();
  if (on_action) on_action(action);
  ModelChunk& chunk = chunks_[static_cast<std::size_t>(action.chunk)];
  const int m = action.micro_batch;
  switch (action.kind) {
    case ActionKind::Forward: {
      if (seen_.insert(m).second) {  // several chunks of the rank may see it
        data_count_.samples += file_.plan.micro_batch;
        data_count_.tokens += rank_->tokens();
      }
      Tensor input;
      if (!chunk.begins_model()) input = mail_->receive(true, action.chunk, m);
      const bool reads = chunk.begins_model() || chunk.ends_model();
      Tensor output = chunk.forward(m, input, reads ? data_of(m) : MicroBatch{});
      if (!chunk.ends_model()) mail_->send(true, action.chunk, m, std::move(output));
      return;
    }
    case ActionKind::Backward:
    case ActionKind::InputGradient: {
      Tensor d_output;
      if (!chunk.ends_model()) d_output = mail_->receive(false, action.chunk, m);
      const bool defers = action.kind == ActionKind::InputGradient;
      Tensor d_input = chunk.backward(m, d_output, loss_scale_, defers);
      if (!chunk.begins_model()) mail_->send(false, action.chunk, m, std::move(d_input));
      return;
    }
    case ActionKind::WeightGradient:
      chunk.weight_gradients(m);
      return;
  }
}

double Trainer::step_loss() {
  double sum = 0;
  for (ModelChunk& chunk : chunks_)
    for (const Tensor& losses : chunk.take_losses()) {
      std::vector<float> host(static_cast<std::size_t>(losses.elements()));
      device_.download(host.data(), losses.view().data, host.size() * sizeof(float));
      for (const float loss : host) sum += static_cast<double>(loss);
    }
  // Every tensor rank has the losses of all its tokens: the first tells them.
  return sum_over_world(groups_->at.tensor > 0 ? 0 : sum) / tokens_per_step();
}

StepReport Trainer::step() {
  samples_ = batches_.samples(step_, groups_->at.data);
  data_.clear();
  seen_.clear();
  store_->clear_gradients();
  sync_->begin_step();
  mail_->begin_step();
  for (const Action& action : schedule_.actions[static_cast<std::size_t>(groups_->at.pipeline)])
    execute(action);
  mail_->end_step();
  if (on_actions_done) on_actions_done();
  sync_->end_step();
  StepReport report{.step = step_, .loss = step_loss(), .rate = rate_.at(step_)};
  if (!std::isfinite(report.loss))
    throw std::runtime_error("the loss of step " + std::to_string(step_) +
                             " is no number any more; a lower rate may help");
  report.gradient_norm = optimizer_->update(step_, report.rate);
  sync_->gather_weights();
  rate_.observe(report.loss);
  ++step_;
  return report;
}

}  // namespace rehearse
