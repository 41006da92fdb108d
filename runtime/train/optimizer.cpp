#include "runtime/train/optimizer.h"

#include <limits>

namespace rehearse {

Optimizer::Optimizer(const RankContext& rank, RankGroups& groups, const GradientSync& sync,
                     AdamOptions options)
    : rank_(rank),
      groups_(groups),
      sync_(sync),
      options_(options),
      squared_sum_(rank.pool, DType::F64, {1}),
      narrow_sum_(rank.wide({1})),
      norm_(rank.wide({1})),
      factor_(rank.wide({1})) {}

void Optimizer::measure_norm() {
  rank_.device.fill_bytes(squared_sum_.view().data, 0, sizeof(double));
  for (const OwnedPiece& piece : rank_.store.owned()) {
    const Parameter& parameter =
        rank_.store.parameters()[static_cast<std::size_t>(piece.parameter)];
    if (parameter.is_copy || sync_.counted_elsewhere(piece.parameter)) continue;
    rank_.device.run(SquaredSum{
        .x = rank_.store.owned_gradient(piece), .out = squared_sum_, .accumulate = true});
  }
  if (groups_.norm->size() == 1) return;
  rank_.device.run(Cast{.x = squared_sum_, .out = narrow_sum_});
  groups_.norm->all_reduce(narrow_sum_, Reduction::Sum, Traffic::Control);
  rank_.device.run(Cast{.x = narrow_sum_, .out = squared_sum_});
}

double Optimizer::update(std::int64_t step, double rate) {
  measure_norm();
  const bool clips = options_.clip_norm > 0;
  rank_.device.run(ClipFactor{.squared_sum = squared_sum_,
                              .max_norm = clips ? static_cast<float>(options_.clip_norm)
                                                : std::numeric_limits<float>::max(),
                              .norm = norm_,
                              .factor = factor_});
  for (const OwnedPiece& piece : rank_.store.owned()) {
    const Parameter& parameter =
        rank_.store.parameters()[static_cast<std::size_t>(piece.parameter)];
    AdamUpdate call;
    call.master = rank_.store.master(piece);
    call.first_moment = rank_.store.first_moment(piece);
    call.second_moment = rank_.store.second_moment(piece);
    call.gradient = rank_.store.owned_gradient(piece);
    if (rank_.store.has_master())
      call.parameter = rank_.store.weights(piece.offset, piece.elements);
    if (clips) call.gradient_scale = factor_;
    call.learning_rate = static_cast<float>(rate);
    call.beta1 = static_cast<float>(options_.beta1);
    call.beta2 = static_cast<float>(options_.beta2);
    call.epsilon = static_cast<float>(options_.epsilon);
    call.weight_decay = parameter.decays ? static_cast<float>(options_.weight_decay) : 0.0f;
    call.step = step + 1;
    rank_.device.run(call);
  }
  float norm = 0;
  rank_.device.download(&norm, norm_.view().data, sizeof(norm));
  return norm;
}

}  // namespace rehearse
