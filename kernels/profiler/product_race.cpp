#include "kernels/profiler/product_race.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "kernels/profiler/operands.h"

namespace rehearse {
namespace {

constexpr int kRounds = 11, kAgain = 3;
constexpr double kBatch_s = 3e-3;  ///< a batch is at least this long, so that events resolve it

std::string race_line(const ProfileTask& task, const RaceResult& result, double tolerance) {
  const Operator& op = task.op;
  char text[160];
  std::snprintf(text, sizeof text,
                "%s  %-15s %s %6lld x %6lld x %6lld  ours %9.2f us  bare %9.2f us  ratio %.3f\n",
                result.ratio <= 1 + tolerance ? "pass" : "FAIL", pass_name(op.pass),
                dtype_name(task.dtype), static_cast<long long>(op.m), static_cast<long long>(op.n),
                static_cast<long long>(op.k), result.ours_s * 1e6, result.bare_s * 1e6,
                result.ratio);
  return text;
}

}  // namespace

RaceResult race(TimedBatch& ours, TimedBatch& bare, std::size_t calls, int rounds) {
  ours.run_s();
  bare.run_s();
  std::vector<double> of_ours, of_bare, ratios;
  for (int round = 0; round < rounds; ++round) {
    const bool ours_first = round % 2 == 0;
    const double first_s = (ours_first ? ours : bare).run_s();
    const double second_s = (ours_first ? bare : ours).run_s();
    of_ours.push_back(ours_first ? first_s : second_s);
    of_bare.push_back(ours_first ? second_s : first_s);
    ratios.push_back(of_ours.back() / of_bare.back());
  }
  const auto count = static_cast<double>(calls);
  return {.ours_s = statistics_of(of_ours).median / count,
          .bare_s = statistics_of(of_bare).median / count,
          .ratio = statistics_of(ratios).median,
          .rounds = rounds};
}

std::vector<RaceResult> race_all(const std::vector<ProfileTask>& tasks, ProfiledDevice& device,
                                 const BareBatch& bare, double tolerance, double budget_s,
                                 const std::atomic<bool>& interrupt) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(budget_s);
  FillData data(1);
  Arena arena(*device.device);
  std::vector<RaceResult> results;
  for (std::size_t i = 0; i < tasks.size() && !interrupt && Clock::now() < end; ++i) {
    const double bytes = std::max(tasks[i].bytes(), 1.0);
    const double sets = std::min(std::ceil(2 * device.cache_bytes / bytes) + 1,
                                 std::max(1.0, device.memory_bytes / bytes));
    const Operands operands(tasks[i], arena, data,
                            static_cast<int>(std::min<double>(sets, device.most_sets)));
    const auto trial = device.stopwatch->prepare(operands.calls());
    trial->run_s();
    const auto of_sets = static_cast<double>(operands.calls().size());
    const double call_s = std::max(trial->run_s() / of_sets, 1e-9);
    const double turns = std::max(1.0, std::ceil(kBatch_s / call_s / of_sets));
    const auto calls = operands.rotated(operands.calls().size() * static_cast<std::size_t>(turns));
    const auto own_batch = device.stopwatch->prepare(calls);
    const auto bare_batch = bare(calls);
    RaceResult result = race(*own_batch, *bare_batch, calls.size(), kRounds);
    if (result.ratio > 1 + tolerance)
      result = race(*own_batch, *bare_batch, calls.size(), kAgain * kRounds);
    result.task = i;
    results.push_back(result);
  }
  return results;
}

std::vector<ProfileTask> race_tasks(const ProfileScope& scope) {
  std::vector<ProfileTask> tasks;
  const auto add = [&](DType dtype, int products, std::vector<std::int64_t> tokens) {
    ProfileScope part = scope;
    part.dtypes = {dtype};
    part.products = products;
    part.sustained_products = 0;
    part.model_tokens = std::move(tokens);
    for (ProfileTask& task : product_tasks(part, dtype)) tasks.push_back(std::move(task));
  };
  add(DType::Bf16, 36, {4096});
  add(DType::F32, 6, {});
  return tasks;
}

bool race_passes(const std::vector<ProfileTask>& tasks, const std::vector<RaceResult>& results,
                 double tolerance) {
  return !tasks.empty() && results.size() == tasks.size() &&
         std::all_of(results.begin(), results.end(),
                     [&](const RaceResult& result) { return result.ratio <= 1 + tolerance; });
}

std::string race_text(const std::vector<ProfileTask>& tasks, const std::vector<RaceResult>& results,
                      double tolerance) {
  std::string text;
  std::vector<double> ratios;
  std::size_t within = 0;
  for (const RaceResult& result : results) {
    text += race_line(tasks[result.task], result, tolerance);
    ratios.push_back(result.ratio);
    within += result.ratio <= 1 + tolerance ? 1 : 0;
  }
  const std::string verdict = race_passes(tasks, results, tolerance) ? "pass" : "FAIL";
  text += verdict + ": " + std::to_string(within) + " of " + std::to_string(tasks.size()) +
          " products are within " + std::to_string(std::lround(100 * tolerance)) +
          " % of cuBLASLt called bare";
  if (!ratios.empty()) {
    char numbers[80];
    std::snprintf(numbers, sizeof numbers, "; ratio %.3f in the median, %.3f at most",
                  statistics_of(ratios).median, *std::max_element(ratios.begin(), ratios.end()));
    text += numbers;
  }
  if (results.size() < tasks.size())
    text += "; " + std::to_string(tasks.size() - results.size()) + " were not reached";
  return text + "\n";
}

#ifndef REHEARSE_HAS_CUDA
BareBatch bare_cublas(ProfiledDevice&) {
  throw std::runtime_error("this program was built without device code, and so without cuBLASLt");
}
#endif

}  // namespace rehearse
