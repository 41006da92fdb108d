#include "strategies/batch_shares.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {

ReplicaPace replica_pace(const std::vector<double>& stage_s, const Plan& plan) {
  const double sum_s = std::accumulate(stage_s.begin(), stage_s.end(), 0.0);
  if (plan.schedule == ScheduleKind::LayerWise) return {sum_s, 0};
  const double slowest_s = *std::max_element(stage_s.begin(), stage_s.end());
  const int chunks = chunks_of(plan.schedule, plan.virtual_stages);
  return {slowest_s, (sum_s - slowest_s) / chunks};
}

std::vector<int> batch_shares(const std::vector<ReplicaPace>& paces, std::int64_t micro_batches) {
  ensure(micro_batches >= static_cast<std::int64_t>(paces.size()),
         "every replica gets a micro-batch");
  std::vector<int> shares(paces.size(), 1);
  using Offer = std::pair<double, std::size_t>;  // when it would be done with one more, who
  std::priority_queue<Offer, std::vector<Offer>, std::greater<>> offers;
  for (std::size_t i = 0; i < paces.size(); ++i) offers.emplace(paces[i].step_s(2), i);
  for (auto left = micro_batches - static_cast<std::int64_t>(paces.size()); left > 0; --left) {
    const std::size_t taker = offers.top().second;
    offers.pop();
    ++shares[taker];
    offers.emplace(paces[taker].step_s(shares[taker] + 1), taker);
  }
  return shares;
}

}  // namespace rehearse
