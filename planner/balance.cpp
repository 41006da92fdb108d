#include "planner/balance.h"

#include <fmt/format.h>

#include <algorithm>

namespace rehearse {
namespace {

std::string share_text(const Plan& plan, std::int64_t global_batch) {
  const std::vector<int>& shares = plan.replica_micro_batches;
  if (shares.empty())
    return fmt::format("{} micro-batches each", micro_batches(plan, global_batch));
  const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
  return *least == *most ? fmt::format("{} micro-batches each", *least)
                         : fmt::format("{} to {} micro-batches", *least, *most);
}

}  // namespace

double steps_of_run(const Workload& workload) {
  return workload.tokens / (double(workload.global_batch) * workload.seq_len);
}

double mean_step_s(const UnevenShares& shares, double steps) {
  const double more_s = shares.before_s - shares.step_time_s;
  return shares.step_time_s + more_s * shares.plan.rebalance_every / steps;
}

std::string shares_sentence(const UnevenShares& shares, const Workload& workload) {
  const int every = shares.plan.rebalance_every;
  std::string text = fmt::format(
      "replicas have {} by their {} speed: a step takes {:.4g} s, and {:.4g} s with {} ({:+.1f} %)",
      share_text(shares.plan, workload.global_batch), every > 0 ? "measured" : "stated",
      shares.step_time_s, shares.before_s, share_text(shares.before, workload.global_batch),
      100 * (shares.before_s / shares.step_time_s - 1));
  if (every > 0) text += fmt::format(", as in the first {} steps", every);
  const double steps = steps_of_run(workload);
  if (every > 0 && steps > every)
    text += fmt::format("; {:.4g} s on average of the run's {:.0f} steps",
                        mean_step_s(shares, steps), steps);
  return text;
}

}  // namespace rehearse
