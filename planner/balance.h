#pragma once
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

/// One way to share out work, and the step that it makes.
struct BalanceWay {
  std::string name;  ///< "even", "by stated speed", "balanced", …
  double step_time_s = 0;
  bool is_used = false;  ///< the plan's own
};

/// The ways that a plan's choice is compared with; the first is the usual one.
struct BalanceComparison {
  std::string what;  ///< "micro-batches of replicas", "layers of stages"
  std::vector<BalanceWay> ways;
};

/// A plan with uneven shares of the batch, and the one before them.
struct UnevenShares {
  const Plan& plan;
  const Plan& before;
  double step_time_s = 0, before_s = 0;
};

/// Steps of a run on the workload's tokens; 0 where it does not state them.
double steps_of_run(const Workload& workload);
/// The mean of a run's steps where the first `rebalance_every` of them are as before.
double mean_step_s(const UnevenShares& shares, double steps);
/// What the shares are, and what they gain, as a sentence.
std::string shares_sentence(const UnevenShares& shares, const Workload& workload);

}  // namespace rehearse
