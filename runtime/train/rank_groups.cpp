#include "runtime/train/rank_groups.h"

#include <algorithm>
#include <numeric>

#include "runtime/train/pipeline_mail.h"
#include "runtime/train/ring_attention.h"

namespace rehearse {
namespace {

std::vector<int> values(const std::vector<Rank>& ranks) {
  std::vector<int> out;
  for (const Rank rank : ranks) out.push_back(rank.value);
  return out;
}

/// Ranks that share all coordinates of `at` but those on the axes named.
std::vector<int> ranks_along(const RankMap& map, const Coordinates& at, bool along_data,
                             bool along_tensor, bool along_stages) {
  std::vector<int> out;
  for (int r = 0; r < map.size(); ++r) {
    const Coordinates other = map.coordinates(Rank{r});
    const bool data = along_data || (other.data == at.data && other.context == at.context);
    const bool tensor = along_tensor || other.tensor == at.tensor;
    const bool stage = along_stages || other.pipeline == at.pipeline;
    if (data && tensor && stage) out.push_back(r);
  }
  return out;
}

/// The stage that holds a copy of this one's weights, or the stage itself.
int copy_stage(const Schedule& schedule, bool tied, int stage) {
  const int last = schedule.stages - 1;
  if (schedule.placement == Placement::BothWays) return last - stage;
  if (!tied || ends_meet(schedule) || (stage != 0 && stage != last)) return stage;
  return last - stage;
}

}  // namespace

RankGroups::RankGroups(World& all, const Plan& plan, const Schedule& schedule, bool tied_embeddings,
                       TrafficCount& traffic) {
  const RankMap map(plan);
  at = map.coordinates(Rank{all.rank()});
  const auto group = [&](const std::vector<int>& ranks,
                         const std::vector<MessageLane>& lanes = {}) {
    return all.group(ranks, traffic, lanes);
  };
  tensor = group(values(map.group(Axis::Tensor, at)));
  const bool in_ring = plan.cp > 1 && plan.context == ContextKind::Ring;
  context = group(values(map.group(Axis::Context, at)),
                  in_ring ? ring_lanes(plan.cp) : std::vector<MessageLane>{});
  if (plan.context == ContextKind::AllToAll) context->prepare_all_to_all();
  data = group(ranks_along(map, at, true, false, false));
  stages = group(values(map.group(Axis::Pipeline, at)), pipeline_lanes(schedule));
  norm = group(ranks_along(map, at, plan.zero > 0, true, true));
  Coordinates partner = at;
  partner.pipeline = copy_stage(schedule, tied_embeddings, at.pipeline);
  std::vector<int> pair{map.rank(at).value};
  if (partner.pipeline != at.pipeline) pair.push_back(map.rank(partner).value);
  std::sort(pair.begin(), pair.end());
  copies = group(pair);
  std::vector<int> everyone(static_cast<std::size_t>(all.size()));
  std::iota(everyone.begin(), everyone.end(), 0);
  world = group(everyone);
}

}  // namespace rehearse
