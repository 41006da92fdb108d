#include "runtime/train/decoder_layer.h"

#include <utility>

namespace rehearse {
namespace {

/// The parameters of a layer's unit by their place; −1 where the model has none.
struct LayerParameters {
  LayerParameters(const RankContext& rank, std::int32_t unit_index)
      : places(rank.model),
        all(rank.store.units()[static_cast<std::size_t>(unit_index)].parameters),
        unit(unit_index) {}
  std::int32_t at(int place) const { return place < 0 ? -1 : all[static_cast<std::size_t>(place)]; }
  NormBlock norm(const RankContext& rank, int weight, int bias) const {
    return {rank, at(weight), at(bias)};
  }
  ShardedLinear::Places linear(int weight, int bias) const {
    return {.weight = at(weight), .bias = at(bias), .unit = unit};
  }
  LayerPlaces places;
  const std::vector<std::int32_t>& all;
  std::int32_t unit;
};

using Of = LayerParameters;

}  // namespace

DecoderLayer::DecoderLayer(const RankContext& rank, const SequenceTables& tables, std::int32_t unit,
                           bool recomputes)
    : rank_(rank),
      recomputes_(recomputes),
      norm1_(Of(rank, unit)
                 .norm(rank, LayerPlaces(rank.model).norm1_weight,
                       LayerPlaces(rank.model).norm1_bias)),
      attention_(rank, tables,
                 Of(rank, unit)
                     .linear(LayerPlaces(rank.model).qkv_weight, LayerPlaces(rank.model).qkv_bias)),
      projection_(rank,
                  Of(rank, unit)
                      .linear(LayerPlaces(rank.model).projection_weight,
                              LayerPlaces(rank.model).projection_bias),
                  Cut::Rows),
      norm2_(Of(rank, unit)
                 .norm(rank, LayerPlaces(rank.model).norm2_weight,
                       LayerPlaces(rank.model).norm2_bias)),
      up_(rank,
          Of(rank, unit).linear(LayerPlaces(rank.model).up_weight, LayerPlaces(rank.model).up_bias),
          Cut::Columns),
      down_(rank,
            Of(rank, unit)
                .linear(LayerPlaces(rank.model).down_weight, LayerPlaces(rank.model).down_bias),
            Cut::Rows) {}

Tensor DecoderLayer::compute(LayerState& state) const {
  state.normed1 = norm1_.forward(state.input, state.norm1);
  attention_.forward(state.normed1, state.attention);
  const Tensor projected = projection_.forward(state.attention.out);
  state.normed2 = norm2_.forward(projected, state.input, state.projected_sum, state.norm2);
  state.up = up_.forward(state.normed2);
  state.activated = rank_.empty({state.up.size(0), rank_.model.ffn / rank_.plan.tp});
  rank_.device.run(
      ActivationForward{.kind = rank_.model.activation, .x = state.up, .out = state.activated});
  const Tensor down = down_.forward(state.activated);
  Tensor output = rank_.empty({down.size(0), down.size(1)});
  rank_.device.run(Add{.a = state.projected_sum, .b = down, .out = output});
  return output;
}

Tensor DecoderLayer::forward(const Tensor& input, LayerState& state) const {
  state.input = input;
  Tensor output = compute(state);
  if (recomputes_) state = {.input = input};
  return output;
}

Tensor DecoderLayer::backward(LayerState& state, const Tensor& d_output, WeightWork& work) const {
  if (recomputes_) compute(state);
  const Tensor d_activated = down_.backward(state.activated, d_output, work);
  const Tensor d_up = rank_.empty({state.up.size(0), state.up.size(1)});
  rank_.device.run(ActivationBackward{
      .kind = rank_.model.activation, .x = state.up, .d_out = d_activated, .d_x = d_up});
  const Tensor d_normed2 = up_.backward(state.normed2, d_up, work);
  const Tensor d_sum = norm2_.backward(state.projected_sum, state.norm2, d_normed2, d_output);
  const Tensor d_attention = projection_.backward(state.attention.out, d_sum, work);
  const Tensor d_normed1 = attention_.backward(state.normed1, state.attention, d_attention, work);
  Tensor d_input = norm1_.backward(state.input, state.norm1, d_normed1, d_sum);
  state = {};
  return d_input;
}

}  // namespace rehearse
