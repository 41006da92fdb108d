#pragma once
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/schedule.h"
#include "strategies/expert_groups.h"

namespace rehearse {

// Who holds what of weights, gradients and optimizer states. Context ranks hold the same weights
// and see other tokens, so they share out and reduce as data ranks do.

/// Ranks that hold copies of the same weights. REQUIRES: dp resolved.
inline int data_ranks(const Plan& plan) { return plan.dp * plan.cp; }
/// Ranks over which ZeRO shards what it shards. REQUIRES: dp resolved.
inline int sharing_ranks(const Plan& plan) { return shard_ranks(plan) * plan.cp; }

/// Whether the last stage keeps a copy of the embedding's table for modules that predict further
/// tokens: a tied head has one already, and the stage may hold the embedding itself.
inline bool mtp_has_table(const Model& model, const Schedule& schedule) {
  return model.mtp_layers > 0 && !model.tied_embeddings && !ends_meet(schedule);
}

/// Parameters whose optimizer state a rank holds, of `parameters` on it, `experts` of which belong
/// to experts: only ranks with copies of the same experts share those.
inline double owned_parameters(const Plan& plan, double parameters, double experts) {
  if (plan.zero == 0) return parameters;
  if (plan.ep == 1) return parameters / sharing_ranks(plan);
  return (parameters - experts) / sharing_ranks(plan) + experts / expert_sharing_copies(plan);
}

}  // namespace rehearse
