#pragma once
#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace rehearse {

/// What a replica's step takes: m micro-batches at its slowest stage, m·micro_batch_s, after the
/// first came through the chunks of the other stages.
struct ReplicaPace {
  double micro_batch_s = 0, fill_s = 0;
  double step_s(int micro_batches) const { return fill_s + micro_batches * micro_batch_s; }
};
/// From the times of its stages (replica_stage_times).
ReplicaPace replica_pace(const std::vector<double>& stage_s, const Plan& plan);

/// Micro-batches of each replica, at least one, such that the slowest is done as early as possible:
/// the exact minimum, since each goes to the replica that would be done with it first (moving one
/// from a replica to another can only make that one later). Equal replicas: the first have more.
/// O(micro-batches · log replicas). REQUIRES: as many micro-batches as replicas.
std::vector<int> batch_shares(const std::vector<ReplicaPace>& paces, std::int64_t micro_batches);

}  // namespace rehearse
