// ZeRO-2 and ZeRO-3 (FSDP), whole or in shards of some data ranks with replicas between them
// (HSDP): gradients are reduce-scattered and weights gathered layer by layer, beside the work.
#include <map>

#include "strategies/lowering.h"

namespace rehearse {

/// Weights of each visited layer, gathered ahead. The gather for visit i waits for the one before
/// it on its stream, and for the end of visit i − 1 − prefetch: that is when FSDP's rate limiter
/// lets the host issue it, with `prefetch` gathered layers beside the one at work.
/// The experts' weights of a layer are gathered by those with copies of them, beside the others'.
void Lowering::emit_shard_gathers(int stage, int t, DataTeam& team, bool experts) {
  const std::vector<BucketVisit>& visits = unit(team.classes.front(), stage).visits;
  for (std::size_t i = 0; i < visits.size(); ++i) {
    const BucketVisit& visit = visits[i];
    const bool is_forward = visit.kind == ActionKind::Forward;
    if (visit.kind == ActionKind::WeightGradient) continue;  // needs inputs, not weights
    if (!is_forward && !plan_.reshard_after_forward) continue;
    // The last layer's backward follows its forward: its weights are still there.
    if (i > 0 && visits[i - 1].chunk == visit.chunk && visits[i - 1].bucket == visit.bucket)
      continue;
    const double bytes = gather_bytes(stage, visit.chunk, visit.bucket, experts);
    if (bytes <= 0) continue;
    const bool is_first = team.gather_tail < 0;
    const std::int32_t id =
        add_team_collective(stage, t, team,
                            {CollectiveKind::AllGather, CommKind::Parameter, Stream::Parameter,
                             bytes, "weight all-gather", plan_.prefetch > 0});
    const std::size_t ahead = static_cast<std::size_t>(plan_.prefetch) + 1;
    for (const int c : team.classes) {
      const StageUnit& u = unit(c, stage);
      for (const int d : lane(t)) {
        const auto at = static_cast<std::size_t>(d);
        edges_.add(team.gather_tail, u.visits[i].first[at]);
        if (i >= ahead) edges_.add(u.visits[i - ahead].last[at], id);
        if (is_first)
          first_gathers_.push_back({{static_cast<std::size_t>(c * plan_.pp + stage), d}, id});
      }
    }
  }
}

/// Gradients of each layer, reduced over the shards and, with HSDP, what is left over the
/// replicas of each shard; one after the other on the data stream.
void Lowering::emit_shard_reductions(int stage, int t, std::vector<DataTeam>& shards,
                                     std::vector<DataTeam>& replicas, ExpertTeams& of_experts) {
  const std::vector<BucketVisit> visits = unit(shards.front().classes.front(), stage).visits;
  for (std::size_t i = 0; i < visits.size(); ++i) {
    const BucketVisit& visit = visits[i];
    const bool makes_gradients =
        visit.kind == ActionKind::Backward || visit.kind == ActionKind::WeightGradient;
    if (!makes_gradients || !(visit.completes || plan_.reduce_every_micro_batch)) continue;
    const double bytes = bucket_size(stage, visit.chunk, visit.bucket) * gradient_bytes();
    if (bytes <= 0) continue;
    std::map<int, std::int32_t> reduced;  // by replica class
    for (DataTeam& team : shards) {
      const std::int32_t id =
          add_team_collective(stage, t, team,
                              {CollectiveKind::ReduceScatter, CommKind::Data, Stream::Data, bytes,
                               "gradient reduce-scatter", plan_.overlap.gradients});
      for (const int c : team.classes) {
        for (const int d : lane(t))
          edges_.add(unit(c, stage).visits[i].last[static_cast<std::size_t>(d)], id);
        if (const auto before = last_replica_reduction_.find({stage, t, c});
            before != last_replica_reduction_.end())
          edges_.add(before->second, id);
        reduced[c] = team.tail;
      }
    }
    for (DataTeam& team : replicas) {
      const std::int32_t id = add_team_collective(
          stage, t, team,
          {CollectiveKind::AllReduce, CommKind::Data, Stream::Data, bytes / sharing_ranks(),
           "gradient all-reduce", plan_.overlap.gradients});
      for (const int c : team.classes) {
        edges_.add(reduced[c], id);
        reduced[c] = last_replica_reduction_[{stage, t, c}] = team.tail;
      }
    }
    reduce_expert_shards(stage, t, i, of_experts, reduced);
    for (const auto& [c, task] : reduced) {
      StageUnit& u = unit(c, stage);
      for (const int d : lane(t)) {
        const auto at = static_cast<std::size_t>(d);
        if (!plan_.overlap.gradients && i + 1 < u.visits.size())
          edges_.add(task, u.visits[i + 1].first[at]);
        u.last_reduction[at] = task;
        u.visit_reduction[{i, d}] = task;
      }
    }
  }
}

void Lowering::emit_sharded_traffic() {
  if (data_ranks() == 1 || plan_.zero < 2) return;
  const int size = shard_ranks(plan_);
  for (int stage = 0; stage < plan_.pp; ++stage)
    for (int t = 0; t < tensor_devices_; ++t) {
      std::vector<DataTeam> shards = data_teams(stage, t, size, false);
      std::vector<DataTeam> replicas;
      if (size < plan_.dp) replicas = data_teams(stage, t, plan_.dp / size, true);
      ExpertTeams of_experts{expert_data_teams(stage, t), expert_replica_teams(stage, t)};
      if (plan_.zero == 3) {
        for (DataTeam& team : shards) emit_shard_gathers(stage, t, team, false);
        for (DataTeam& team : of_experts.sharing) emit_shard_gathers(stage, t, team, true);
      }
      emit_shard_reductions(stage, t, shards, replicas, of_experts);
    }
}

void Lowering::wrap_gathers() {
  // A step's first weights are those of the last step's update.
  for (const auto& [who, task] : first_gathers_)
    edges_.add_wrap(units_[who.first].tail[static_cast<std::size_t>(who.second)], task);
}

}  // namespace rehearse
