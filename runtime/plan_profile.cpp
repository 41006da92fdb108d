#include "runtime/plan_profile.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <numeric>
#include <set>
#include <stdexcept>

#include "kernels/fit/fit_profile.h"
#include "kernels/profiler/statistics.h"
#include "plan/rank_map.h"
#include "plan/units.h"
#include "runtime/busy_ranks.h"
#include "runtime/operator_meter.h"
#include "runtime/train/solo_world.h"
#include "runtime/train/warm_up.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;
using Timings = std::map<std::array<std::int64_t, 12>, OperatorMeter::Timed>;

/// What was measured of all stages.
struct Found {
  Timings operators;
  std::map<std::string, std::vector<double>> step_rates;  ///< bytes/s, by name
  int steps = 0;
};

/// Steps of one rank until the time is over; the first warms up.
void measure_rank(const PlanFile& file, int rank, ComputeDevice& device, double budget_s,
                  const std::function<bool(double)>& may_go_on, Found& found) {
  constexpr int kLeastSteps = 3;
  OperatorMeter meter(file, device);
  const auto world = solo_world(rank, world_size(file.plan), device);
  TrainOptions options;
  options.rate = {.kind = RateKind::Constant, .peak = 0};  // weights stay as they are
  const auto tokens =
      static_cast<std::int64_t>(file.workload.global_batch) * 4 * file.workload.seq_len + 1;
  Trainer trainer(file, options, *world, meter.device(), tokens, made_up_text(file.model.vocab));
  meter.attach(trainer);
  trainer.step();
  meter.forget();
  const auto start = Clock::now();
  for (int step = 0;; ++step) {
    const double elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
    if (!may_go_on(elapsed_s) || (step >= kLeastSteps && elapsed_s > budget_s)) break;
    trainer.step();
    meter.end_step();
    ++found.steps;
  }
  for (const auto& [key, timed] : meter.operators()) {
    OperatorMeter::Timed& all = found.operators[key];
    all.op = timed.op;
    all.seconds.insert(all.seconds.end(), timed.seconds.begin(), timed.seconds.end());
    all.executions.insert(all.executions.end(), timed.executions.begin(), timed.executions.end());
  }
  for (const auto& [name, work] : meter.step_work())
    for (const double seconds : work.seconds)
      if (seconds > 0) found.step_rates[name].push_back(work.bytes / seconds);
}

/// One rank of the first stage, and one of the last: inner ones have the same layers.
std::vector<int> ranks_to_measure(const PlanFile& file) {
  const RankMap map(file.plan);
  std::set<int> ranks;
  for (const int stage : {0, file.plan.pp - 1}) {
    Coordinates at;
    at.pipeline = stage;
    ranks.insert(map.rank(at).value);
  }
  return {ranks.begin(), ranks.end()};
}

/// Rates as a data sheet would state them: the best that any operator reached, and at least the
/// least that a profile may hold. Narrow products go through fp32 on a CPU.
void set_rates(const Found& found, const Profile& profile, DeviceFacts& device) {
  device.memory_bandwidth_bytes_per_s = device.fp32_flops = 1e9;
  for (const ProfileSample& sample : profile.samples) {
    if (sample.family == OperatorFamily::Memory && sample.seconds > 1e-8)
      device.memory_bandwidth_bytes_per_s =
          std::max(device.memory_bandwidth_bytes_per_s, sample.bytes / sample.seconds);
    if (sample.family != OperatorFamily::Gemm) continue;
    const double rate = 2 * static_cast<double>(sample.m * sample.n) *
                        static_cast<double>(sample.k) / sample.seconds;
    device.fp32_flops = std::max(device.fp32_flops, rate);
    if (sample.precision == Precision::Bf16) device.bf16_flops = std::max(device.bf16_flops, rate);
  }
  for (const auto& [name, rates] : found.step_rates)
    device.memory_bandwidth_bytes_per_s =
        std::max(device.memory_bandwidth_bytes_per_s, statistics_of(rates).median);
}

/// The standard deviation, relative to the mean, of a normal distribution whose executions lie as
/// far apart from one another on average: 2/√π of it. So two ranks wait for the later of them as
/// long as they do, which a deviation of rare and long interruptions would overstate. At most 1:
/// what varies by more is disturbed by others, and says nothing of the next run.
double deviation_of(const std::vector<double>& executions) {
  if (executions.size() < 2) return 0;
  const double mean = std::accumulate(executions.begin(), executions.end(), 0.0) /
                      static_cast<double>(executions.size());
  const double apart = mean_difference(executions) / mean;
  return std::min(1.0, apart * std::sqrt(std::numbers::pi) / 2);
}

Profile profile_of(const Found& found, const ProfiledDevice& on, int ranks) {
  Profile profile;
  profile.gpu = on.facts.gpu;
  profile.stack = "rehearse";
  profile.made_by = "rehearse-device profile --plan; " + on.description +
                    (ranks > 1 ? "; " + std::to_string(ranks) + " ranks at once" : "") + "; " +
                    std::to_string(found.steps) + " steps";
  for (const auto& [key, timed] : found.operators) {
    profile.samples.push_back(profile_sample(timed.op, statistics_of(timed.seconds).median));
    profile.samples.back().deviation = deviation_of(timed.executions);
  }
  profile.device = on.facts;
  set_rates(found, profile, profile.device);
  for (const auto& [name, rates] : found.step_rates) {
    const double share = statistics_of(rates).median / profile.device.memory_bandwidth_bytes_per_s;
    profile.memory.push_back({.operators = {name},
                              .cached_share = share,
                              .memory_share = share,
                              .relative_error = std::min(1.0, statistics_of(rates).spread() / 2),
                              .evidence = CostSource::Measured,
                              .source = "once a step"});
  }
  profile.sustained_rate = {.value = 1, .source = "as measured, step after step"};
  return profile;
}

}  // namespace

Profile measure_plan(const PlanFile& file, const PlanMeasuring& measuring) {
  const int ranks = world_size(file.plan);
  const auto for_ever = [](double) { return true; };
  const BusyRanks others(ranks - 1, [&](int rank) {
    ProfiledDevice own = measuring.device();
    Found unused;
    measure_rank(file, rank, *own.device, 3600, for_ever, unused);
  });
  ProfiledDevice device = measuring.device();
  Found found;
  const std::vector<int> measured = ranks_to_measure(file);
  double before_s = 0;
  for (const int rank : measured) {
    const double budget_s = measuring.budget_s / static_cast<double>(measured.size());
    const auto may_go_on = [&](double elapsed_s) {
      if (measuring.progress) measuring.progress(before_s + elapsed_s);
      return measuring.interrupt == nullptr || !*measuring.interrupt;
    };
    measure_rank(file, rank, *device.device, budget_s, may_go_on, found);
    before_s += budget_s;
  }
  if (found.steps == 0) throw std::runtime_error("interrupted before anything was measured");
  Profile profile = profile_of(found, device, ranks);
  profile.launch_s = {.value = measured_launch_s(device),
                      .source = "measured: an operator of one element"};
  return profile;
}

}  // namespace rehearse
