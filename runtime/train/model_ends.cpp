#include "runtime/train/model_ends.h"

namespace rehearse {
namespace {

const std::vector<std::int32_t>& parameters_of(const RankContext& rank, std::int32_t unit) {
  return rank.store.units()[static_cast<std::size_t>(unit)].parameters;
}

}  // namespace

EmbeddingBlock::EmbeddingBlock(const RankContext& rank, const SequenceTables& tables,
                               std::int32_t unit)
    : rank_(rank), tables_(tables), table_(parameters_of(rank, unit)[0]) {
  if (rank.model.positions == Positions::Learned) positions_ = parameters_of(rank, unit)[1];
}

std::int64_t EmbeddingBlock::first_row() const {
  return rank_.splits_vocabulary() ? rank_.tensor.rank() * rank_.store.weight(table_).size(0) : 0;
}

Tensor EmbeddingBlock::forward(const Tensor& tokens) const {
  const bool split = rank_.splits_vocabulary();
  Tensor out = rank_.empty({rank_.tokens(), rank_.model.hidden});
  EmbeddingForward call{
      .tokens = tokens, .table = rank_.store.weight(table_), .first_row = first_row(), .out = out};
  // Positions are added once, by the first of the ranks that add up.
  if (positions_ >= 0 && (!split || rank_.tensor.rank() == 0)) {
    call.position_table = rank_.store.weight(positions_);
    call.positions = tables_.positions;
  }
  rank_.device.run(call);
  if (!split) return rank_.splits_sequence() ? rank_.own_rows(out) : out;
  if (rank_.splits_sequence() && positions_ < 0) {
    Tensor share = rank_.empty({rank_.split_tokens(), rank_.model.hidden});
    rank_.tensor.reduce_scatter(out, share, Traffic::Tensor);
    return share;
  }
  rank_.tensor.all_reduce(out, Reduction::Sum, Traffic::Tensor);
  return rank_.splits_sequence() ? rank_.own_rows(out) : out;
}

void EmbeddingBlock::backward(const Tensor& tokens, const Tensor& d_out) const {
  const Tensor d_whole = rank_.splits_sequence() ? gathered(rank_, d_out) : d_out;
  rank_.device.run(EmbeddingBackward{.tokens = tokens,
                                     .d_out = d_whole,
                                     .d_table = rank_.store.gradient(table_),
                                     .first_row = first_row()});
  if (positions_ < 0) return;
  rank_.device.run(EmbeddingBackward{
      .tokens = tables_.positions, .d_out = d_whole, .d_table = rank_.store.gradient(positions_)});
}

HeadBlock::HeadBlock(const RankContext& rank, std::int32_t unit)
    : rank_(rank),
      norm_(rank, parameters_of(rank, unit)[0],
            rank.model.norm == Norm::LayerNorm ? parameters_of(rank, unit)[1] : -1),
      head_(rank, {.weight = parameters_of(rank, unit).back(), .bias = -1, .unit = unit},
            rank.splits_vocabulary() ? Cut::Columns : Cut::None) {}

std::int64_t HeadBlock::first_column(const Tensor& logits) const {
  return rank_.splits_vocabulary() ? rank_.tensor.rank() * logits.size(1) : 0;
}

void HeadBlock::forward(const Tensor& input, const Tensor& targets, HeadState& state) const {
  const std::int64_t rows = rank_.tokens();
  state.input = input;
  state.targets = targets;
  state.normed = norm_.forward(input, state.norm);
  state.logits = head_.forward(state.normed);
  state.maximum = rank_.wide({rows});
  state.sum = rank_.wide({rows});
  state.target_logit = rank_.wide({rows});
  rank_.device.run(CrossEntropyForward{.logits = state.logits,
                                       .targets = targets,
                                       .first_column = first_column(state.logits),
                                       .vocabulary = rank_.model.vocab,
                                       .maximum = state.maximum,
                                       .sum = state.sum,
                                       .target_logit = state.target_logit});
  if (!rank_.splits_vocabulary()) return;
  const Tensor own_maximum = state.maximum;
  state.maximum = rank_.wide({rows});
  rank_.device.run(Cast{.x = own_maximum, .out = state.maximum});
  rank_.tensor.all_reduce(state.maximum, Reduction::Max, Traffic::Tensor);
  rank_.device.run(CrossEntropyRescale{
      .local_maximum = own_maximum, .maximum = state.maximum, .sum = state.sum});
  rank_.tensor.all_reduce(state.target_logit, Reduction::Sum, Traffic::Tensor);
  rank_.tensor.all_reduce(state.sum, Reduction::Sum, Traffic::Tensor);
}

Tensor HeadBlock::backward(HeadState& state, const Tensor& loss_scale, Tensor& losses,
                           WeightWork& work) const {
  losses = rank_.wide({rank_.tokens()});
  rank_.device.run(CrossEntropyBackward{.logits = state.logits,
                                        .targets = state.targets,
                                        .first_column = first_column(state.logits),
                                        .vocabulary = rank_.model.vocab,
                                        .maximum = state.maximum,
                                        .sum = state.sum,
                                        .target_logit = state.target_logit,
                                        .loss_scale = loss_scale,
                                        .loss = losses});
  const Tensor d_normed = head_.backward(state.normed, state.logits, work);
  Tensor d_input = norm_.backward(state.input, state.norm, d_normed, {});
  state = {};
  return d_input;
}

}  // namespace rehearse
