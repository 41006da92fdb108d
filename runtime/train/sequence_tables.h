#pragma once
#include <vector>

#include "runtime/data/batches.h"
#include "runtime/train/rank_context.h"

namespace rehearse {

/// Whether context ranks hold two pieces of each sequence, one early and one late. All-to-alls give
/// every rank whole sequences, so that nothing is out of balance.
inline bool holds_two_pieces(const Plan& plan) {
  return plan.cp > 1 && plan.context == ContextKind::Ring && plan.context_balanced;
}

/// Where the rows of a micro-batch are in their sequences; made once a run.
struct SequenceTables {
  explicit SequenceTables(const RankContext& rank);
  std::vector<TokenRange> ranges;  ///< of every sequence, what this rank holds
  Tensor positions;                ///< of each row, in its sequence
  Tensor rope;                     ///< cosines and sines of each position
};

}  // namespace rehearse
