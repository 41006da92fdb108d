#pragma once
#include <vector>

#include "plan/schedule.h"
#include "runtime/train/rank_context.h"
#include "runtime/train/rank_groups.h"

namespace rehearse {

/// Brings the gradients of a step together: over data and context ranks bucket by bucket, beside
/// the last micro-batch's backward where the plan says so; over copies of the same weights on
/// other stages; and over tensor ranks where each saw only its own tokens.
///
/// Gradients are sums over tokens of a mean's terms, so that they add up whatever each replica's
/// share of the batch.
class GradientSync {
 public:
  GradientSync(const RankContext& rank, RankGroups& groups, const Schedule& schedule, int stage);

  void begin_step();
  /// A micro-batch's gradients of a unit are complete.
  void unit_done(std::int32_t unit);
  /// Returns when all gradients are what one rank would have.
  void end_step();

  /// With ZeRO: gathers the updated weights. With the plan's overlap this only begins, and
  /// `await_weights` ends it where a unit is needed.
  void gather_weights();
  void await_weights(std::int32_t unit);
  void await_all_weights();

  /// The parameter that another stage holds a copy of; −1 for none.
  std::int32_t tied_table() const { return tied_table_; }
  /// Whether another stage counts this rank's weights in the gradient norm.
  bool counted_elsewhere(std::int32_t parameter) const;

 private:
  void reduce(std::size_t bucket);
  void sum_tied_table();
  void sum_mirrored();
  void sum_over_sequence();
  bool ready(std::size_t bucket) const;
  bool waits_for_copy(std::size_t bucket) const;

  const RankContext& rank_;
  RankGroups& groups_;
  const Schedule& schedule_;
  int stage_;
  /// Buckets are reduced as soon as they are complete. Replicas of unequal shares may complete
  /// buckets of several chunks in different orders, but have to reduce them in one: at the end.
  bool reduces_early_;
  std::int32_t tied_table_ = -1;
  std::vector<int> visits_;  ///< by unit: micro-batches that come to it
  std::vector<int> done_;    ///< by unit: micro-batches whose gradients are in
  std::vector<std::vector<std::int32_t>> waits_for_;  ///< by bucket: units
  std::vector<bool> is_reduced_;                      ///< by bucket: begun at least
  std::vector<Transfer> reductions_, gathers_;        ///< by bucket
};

}  // namespace rehearse
