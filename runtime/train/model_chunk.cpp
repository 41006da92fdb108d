#include "runtime/train/model_chunk.h"

#include "plan/ensure.h"

namespace rehearse {

ModelChunk::ModelChunk(const RankContext& rank, const SequenceTables& tables,
                       std::int32_t first_unit, std::int32_t end_unit)
    : rank_(rank), first_unit_(first_unit), end_unit_(end_unit) {
  int recomputing = rank.plan.recompute == Recompute::Full ? rank.plan.recompute_layers : 0;
  if (recomputing < 0) recomputing = end_unit - first_unit;
  for (std::int32_t u = first_unit; u < end_unit; ++u) {
    switch (rank.store.units()[static_cast<std::size_t>(u)].kind) {
      case ModelUnit::Embedding:
        embedding_.emplace(rank, tables, u);
        break;
      case ModelUnit::Layer:
        layers_.emplace_back(rank, tables, u, static_cast<int>(layers_.size()) < recomputing);
        layer_units_.push_back(u);
        break;
      case ModelUnit::Head:
        head_.emplace(rank, u);
        break;
    }
  }
}

Tensor ModelChunk::forward(int micro_batch, const Tensor& input, const MicroBatch& data) {
  ensure(states_.find(micro_batch) == states_.end(), "a micro-batch goes forward once");
  State& state = states_[micro_batch];
  state.data = data;
  Tensor x = input;
  if (embedding_) {
    before_forward(first_unit_);
    x = embedding_->forward(data.tokens);
  }
  state.layers.resize(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    before_forward(layer_units_[i]);
    x = layers_[i].forward(x, state.layers[i]);
  }
  if (!head_) return x;
  before_forward(end_unit_ - 1);
  head_->forward(x, data.targets, state.head);
  return {};
}

Tensor ModelChunk::backward(int micro_batch, const Tensor& d_output, const Tensor& loss_scale,
                            bool defers) {
  State& state = states_.at(micro_batch);
  state.work = WeightWork(defers);
  Tensor d_x = d_output;
  if (head_) {
    begin(end_unit_ - 1);
    d_x = head_->backward(state.head, loss_scale, losses_.emplace_back(), state.work);
    if (!defers) done(end_unit_ - 1);
  }
  for (std::size_t i = layers_.size(); i-- > 0;) {
    begin(layer_units_[i]);
    d_x = layers_[i].backward(state.layers[i], d_x, state.work);
    if (!defers) done(layer_units_[i]);
  }
  if (embedding_) {
    // Its gradient is a weight's.
    state.d_embedding = std::exchange(d_x, {});
    if (!defers) add_to_tables(state);
  }
  if (!defers) states_.erase(micro_batch);
  return d_x;
}

void ModelChunk::add_to_tables(State& state) {
  begin(first_unit_);
  embedding_->backward(state.data.tokens, state.d_embedding);
  done(first_unit_);
}

void ModelChunk::weight_gradients(int micro_batch) {
  State& state = states_.at(micro_batch);
  for (std::int32_t unit = end_unit_; unit-- > first_unit_;) {
    if (embedding_ && unit == first_unit_) {
      add_to_tables(state);
      continue;
    }
    begin(unit);
    state.work.run(rank_, unit);
    done(unit);
  }
  states_.erase(micro_batch);
}

}  // namespace rehearse
