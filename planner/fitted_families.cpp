#include "planner/fitted_families.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "planner/validation.h"

namespace rehearse {
namespace {

constexpr double kJudgedLaunch_s = 7.5e-6;
/// Those that planner/framework.cpp names beside its host times.
constexpr const char* kFittedFamilies[] = {"vtrain_single", "nanotron_h100"};

/// Of the relative errors |p / m − 1| of one prediction p for several times m the sum is least at
/// one of the times, since it is linear between them.
double least_sum(const std::vector<double>& times_s) {
  double least = 0;
  for (std::size_t i = 0; i < times_s.size(); ++i) {
    double sum = 0;
    for (const double other_s : times_s) sum += std::abs(times_s[i] / other_s - 1);
    if (i == 0 || sum < least) least = sum;
  }
  return least;
}

}  // namespace

Twins twins_of(const std::vector<const MeasuredRun*>& family) {
  std::map<std::string, std::vector<double>> times_s;
  int timed = 0;
  for (const MeasuredRun* run : family) {
    if (run->measured.step_time_s <= 0) continue;
    ++timed;
    if (!run->configuration.empty())
      times_s[run->configuration].push_back(run->measured.step_time_s);
  }
  Twins twins;
  for (const auto& [configuration, alike_s] : times_s) {
    if (alike_s.size() < 2) continue;
    twins.runs += static_cast<int>(alike_s.size());
    twins.least_error += least_sum(alike_s) / timed;
  }
  return twins;
}

std::vector<UnfittedHost> errors_with_judged_host_times(const std::vector<MeasuredRun>& runs,
                                                        int jobs) {
  std::vector<MeasuredRun> without;
  for (const MeasuredRun& run : runs) {
    const bool fitted = std::find(std::begin(kFittedFamilies), std::end(kFittedFamilies),
                                  run.family) != std::end(kFittedFamilies);
    const GpuSpec& gpu = run.cluster.groups.front().node.gpu;
    const double launch_s = framework_costs(run.framework, run.plan, gpu).launch_s;
    if (!fitted || launch_s <= 0 || run.measured.step_time_s <= 0) continue;
    if (!framework_fault(run).empty()) continue;
    without.push_back(run);
    without.back().host *= kJudgedLaunch_s / launch_s;
  }
  const std::vector<RunPrediction> predictions = predict_all(without, jobs, {});
  std::map<std::string, std::vector<double>> errors;
  for (std::size_t i = 0; i < without.size(); ++i) {
    double error = 0;
    if (step_time_error(without[i], predictions[i], error))
      errors[without[i].family].push_back(std::abs(error));
  }
  std::vector<UnfittedHost> families;
  for (const auto& [family, each] : errors) {
    double sum = 0;
    for (const double error : each) sum += error;
    families.push_back({family, sum / static_cast<double>(each.size())});
  }
  return families;
}

}  // namespace rehearse
