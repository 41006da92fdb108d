#include "app/plan_output.h"

#include "plan/plan_file.h"
#include "plan/rank_map.h"
#include "topologies/cluster_reader.h"

namespace rehearse {

std::string plan_file_of(const VariantResult& variant, std::size_t plan) {
  const PlanOutcome& outcome = variant.plans[plan];
  const Scenario& scenario = variant.variant.scenario;
  PlanFile file{.title = scenario.title,
                .model = scenario.model,
                .workload = scenario.workload,
                .plan = outcome.plan,
                .cluster_digest = cluster_digest(scenario.cluster),
                .gpus = variant.gpus,
                .rank_to_device = {},
                .layer_split = chunk_layers(outcome.plan, scenario.model.layers),
                .stages = {},
                .step_time_s = outcome.metrics.step_time_s,
                .actions = {}};
  if (file.workload.seq_len == 0) file.workload.seq_len = scenario.model.max_seq_len;
  const RankMap ranks(outcome.plan);
  for (int rank = 0; rank < ranks.size(); ++rank)
    file.rank_to_device.push_back(ranks.gpu(Rank{rank}).value);
  for (const StageReport& stage : outcome.stages)
    file.stages.push_back({.stage = stage.stage,
                           .memory_bytes = stage.memory.total_bytes(),
                           .capacity_bytes = stage.memory_capacity_bytes});
  return write_plan_file(file);
}

}  // namespace rehearse
