#include "plan/plan_schedule.h"

#include <algorithm>

#include "plan/dealt_schedule.h"
#include "plan/plan_file.h"

namespace rehearse {
namespace {

/// Beyond this a list of actions is a mistake, and checking it would take much memory.
constexpr double kMostActions = 1e7;

std::vector<ScheduleFault> explicit_faults(const Plan& plan, int micro_batches) {
  if (plan.actions.size() != static_cast<std::size_t>(plan.pp))
    return {{"/actions",
             "the plan has " + std::to_string(plan.pp) + " stages, but actions are given for " +
                 std::to_string(plan.actions.size()),
             ""}};
  const int chunks = chunks_of(plan.schedule, plan.virtual_stages);
  if (2.0 * micro_batches * plan.pp * chunks > kMostActions)
    return {{"/actions", "the plan makes more than 10 M actions", "name a schedule instead"}};
  std::vector<Action> actions;
  int named = 0;  // micro-batches, up to the highest
  for (std::size_t stage = 0; stage < plan.actions.size(); ++stage) {
    if (!parse_actions(plan.actions[stage], actions))
      return {{"/actions/" + std::to_string(stage),
               "the actions of stage " + std::to_string(stage) + " are not readable",
               "write them like \"F0 F1 B0 B1\", or \"F0.1\" for chunk 1"}};
    for (const Action& action : actions) named = std::max(named, action.micro_batch + 1);
  }
  if (named != micro_batches)  // one reason instead of one for each action that is missing
    return {{"/actions",
             "the actions are of " + std::to_string(named) + " micro-batches, and a step has " +
                 std::to_string(micro_batches) + " on each replica",
             "a global batch, or dp, to match"}};
  std::vector<ScheduleFault> faults;
  for (std::string& fault : schedule_faults(plan_schedule(plan, micro_batches)))
    faults.push_back({"/actions", std::move(fault), ""});
  return faults;
}

}  // namespace

std::vector<ScheduleFault> plan_schedule_faults(const Plan& plan, int micro_batches) {
  if (!plan_places(plan).empty()) {
    if (const std::string why = why_not_dealt(plan.schedule); !why.empty())
      return {{"/stage_placement", "pieces cannot be dealt out to the stages of this plan: " + why,
               "\"schedule\": \"1f1b\", \"gpipe\" or \"layer-wise\""}};
    if (plan.schedule_group > 0)
      return {{"/schedule_group", "only the interleaving that goes round has groups",
               "\"stage_placement\": \"round-robin\""}};
    if (plan.actions.empty()) return {};
  }
  if (!plan.actions.empty()) return explicit_faults(plan, micro_batches);
  std::string why = why_not_schedulable(plan.schedule, plan.pp, plan.virtual_stages, micro_batches,
                                        plan.schedule_group);
  if (why.empty()) return {};
  const bool of_kind = plan.schedule == ScheduleKind::DualPipe || plan.schedule_group > 0;
  return {
      {of_kind ? (plan.schedule_group > 0 ? "/schedule_group" : "/schedule") : "/virtual_stages",
       std::move(why),
       "this plan has " + std::to_string(plan.pp) + " stages and " + std::to_string(micro_batches) +
           " micro-batches"}};
}

std::vector<ChunkPlace> plan_places(const Plan& plan) {
  const bool goes_round = plan.stage_placement == Deal::RoundRobin;
  const bool is_order = plan.stage_placement == Deal::Range && plan.virtual_stages == 1;
  if (goes_round || is_order || plan.pp == 1) return {};
  return dealt_places(plan.stage_placement, plan.pp, plan.virtual_stages);
}

Schedule plan_schedule(const Plan& plan, int micro_batches) {
  std::vector<ChunkPlace> places = plan_places(plan);
  const bool dealt = !places.empty();
  if (plan.actions.empty() && dealt)
    return dealt_schedule(plan.schedule, std::move(places), plan.pp, micro_batches);
  if (plan.actions.empty())
    return make_schedule(plan.schedule, plan.pp, plan.virtual_stages, micro_batches,
                         plan.schedule_group);
  Schedule schedule{.stages = plan.pp,
                    .chunks = chunks_of(plan.schedule, plan.virtual_stages),
                    .micro_batches = micro_batches,
                    .actions = {},
                    .placement = dealt ? Placement::Dealt : placement_of(plan.schedule),
                    .places = std::move(places)};
  for (const std::string& text : plan.actions) parse_actions(text, schedule.actions.emplace_back());
  return schedule;
}

}  // namespace rehearse
