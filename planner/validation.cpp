#include "planner/validation.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace rehearse {
namespace {

/// What is collected of a family before it is summed up.
struct Collected {
  std::vector<double> time_errors, memory_errors;
  std::vector<std::string> time_ids, memory_ids;
  int time_missing = 0, memory_missing = 0;
  OutOfMemoryTable out_of_memory;
  int runs = 0;
  std::string left_out;

  void take(const Collected& other, bool with_times) {
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    if (with_times) {
      append(time_errors, other.time_errors);
      append(time_ids, other.time_ids);
      time_missing += other.time_missing;
    }
    append(memory_errors, other.memory_errors);
    append(memory_ids, other.memory_ids);
    memory_missing += other.memory_missing;
    out_of_memory.true_positive += other.out_of_memory.true_positive;
    out_of_memory.false_positive += other.out_of_memory.false_positive;
    out_of_memory.true_negative += other.out_of_memory.true_negative;
    out_of_memory.false_negative += other.out_of_memory.false_negative;
    runs += other.runs;
  }
};

void count_out_of_memory(const MeasuredRun& run, const RunPrediction& prediction,
                         OutOfMemoryTable& table) {
  if (!prediction.not_expressible.empty()) return;
  if (run.measured.out_of_memory)
    ++(prediction.fits ? table.false_negative : table.true_positive);
  else
    ++(prediction.fits ? table.true_negative : table.false_positive);
}

void collect(const MeasuredRun& run, const RunPrediction& prediction, Collected& into) {
  ++into.runs;
  double error = 0;
  if (step_time_error(run, prediction, error)) {
    into.time_errors.push_back(error);
    into.time_ids.push_back(run.id);
  } else if (run.measured.step_time_s > 0) {
    ++into.time_missing;
  }
  if (memory_error(run, prediction, error)) {
    into.memory_errors.push_back(error);
    into.memory_ids.push_back(run.id);
  } else if (run.measured.peak_memory_bytes > 0) {
    ++into.memory_missing;
  }
  count_out_of_memory(run, prediction, into.out_of_memory);
}

/// Means over families, small ones pooled. `value` gives a family's figure and whether it has one.
template <class Value>
double family_mean(const std::map<std::string, Collected>& families, double none, Value value) {
  Collected pool;
  double sum = 0;
  int count = 0;
  const auto add = [&](const Collected& family) {
    double figure = 0;
    if (!value(family, figure)) return;
    sum += figure;
    ++count;
  };
  for (const auto& [name, family] : families)
    if (family.runs < kPooledRuns)
      pool.take(family, family.left_out.empty());
    else
      add(family);
  add(pool);
  return count > 0 ? sum / count : none;
}

bool mean_time_error(const Collected& family, double& figure) {
  if (!family.left_out.empty()) return false;
  const auto all = statistics_of(family.time_errors, family.time_ids, family.time_missing);
  figure = all.mean_abs;
  return all.count + all.missing > 0;
}

bool mean_memory_error(const Collected& family, double& figure) {
  const auto all = statistics_of(family.memory_errors, family.memory_ids, family.memory_missing);
  figure = all.mean_abs;
  return all.count + all.missing > 0;
}

double share_inside(const std::vector<MeasuredRun>& runs,
                    const std::vector<RunPrediction>& predictions) {
  int inside = 0, count = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    double error = 0;
    if (!framework_fault(runs[i]).empty() || !step_time_error(runs[i], predictions[i], error))
      continue;
    ++count;
    if (in_interval(predictions[i], runs[i].measured.step_time_s)) ++inside;
  }
  return count > 0 ? double(inside) / count : 0;
}

}  // namespace

double OutOfMemoryTable::right() const {
  return total() > 0 ? double(true_positive + true_negative) / total() : 1;
}

ErrorStatistics statistics_of(const std::vector<double>& errors,
                              const std::vector<std::string>& ids, int missing) {
  ErrorStatistics all;
  all.count = static_cast<int>(errors.size());
  all.missing = missing;
  std::vector<double> sizes;
  double sum = 0;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    sizes.push_back(std::abs(errors[i]));
    sum += sizes.back();
    all.bias += errors[i] / static_cast<double>(errors.size());
    if (sizes.back() < std::abs(all.worst)) continue;
    all.worst = errors[i];
    all.worst_id = ids[i];
  }
  if (all.count + missing > 0) all.mean_abs = (sum + missing) / (all.count + missing);
  if (sizes.empty()) return all;
  std::sort(sizes.begin(), sizes.end());
  const std::size_t middle = sizes.size() / 2;
  all.median_abs = sizes.size() % 2 == 1 ? sizes[middle] : (sizes[middle - 1] + sizes[middle]) / 2;
  return all;
}

bool step_time_error(const MeasuredRun& run, const RunPrediction& prediction, double& error) {
  if (run.measured.step_time_s <= 0 || !prediction.not_expressible.empty()) return false;
  error = prediction.step_time_s / run.measured.step_time_s - 1;
  return true;
}

bool memory_error(const MeasuredRun& run, const RunPrediction& prediction, double& error) {
  if (run.measured.peak_memory_bytes <= 0 || !prediction.not_expressible.empty()) return false;
  error = prediction.memory_bytes / run.measured.peak_memory_bytes - 1;
  return true;
}

bool in_interval(const RunPrediction& prediction, double step_time_s) {
  const double factor = 1 + prediction.relative_error;
  return step_time_s <= prediction.step_time_s * factor &&
         step_time_s >= prediction.step_time_s / factor;
}

std::string framework_fault(const MeasuredRun& run) {
  if (run.framework != Framework::Nanotron) return "";
  const int per_node = run.cluster.groups.front().node.gpus;
  if (run.plan.pp > 1) return "nanotron's pipeline engine waits on the host between transfers";
  if (run.plan.tp > per_node) return "nanotron's tensor groups stall across nodes";
  return "";
}

namespace {

ErrorStatistics megatron_16_bits(const std::vector<MeasuredRun>& runs,
                                 const std::vector<RunPrediction>& predictions) {
  std::vector<double> errors;
  std::vector<std::string> ids;
  int missing = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Precision precision = runs[i].plan.precision;
    const bool half = precision == Precision::Bf16 || precision == Precision::Fp16;
    if (runs[i].framework != Framework::Megatron || !half || runs[i].gpus < kMegatronGpus) continue;
    double error = 0;
    if (step_time_error(runs[i], predictions[i], error)) {
      errors.push_back(error);
      ids.push_back(runs[i].id);
    } else if (runs[i].measured.step_time_s > 0) {
      ++missing;
    }
  }
  return statistics_of(errors, ids, missing);
}

}  // namespace

Validation compare(const std::vector<MeasuredRun>& runs,
                   const std::vector<RunPrediction>& predictions) {
  std::map<std::string, Collected> families;
  std::map<std::string, int> faulty;
  std::map<std::string, std::string> reasons;
  std::map<std::string, std::vector<const MeasuredRun*>> members;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    members[runs[i].family].push_back(&runs[i]);
    collect(runs[i], predictions[i], families[runs[i].family]);
    const std::string fault = framework_fault(runs[i]);
    if (fault.empty()) continue;
    ++faulty[runs[i].family];
    reasons[runs[i].family] = fault;
  }
  Collected all;
  Validation result;
  for (auto& [name, family] : families) {
    if (2 * faulty[name] > family.runs) family.left_out = reasons[name];
    all.take(family, family.left_out.empty());
    result.families.push_back(
        {.name = name,
         .runs = family.runs,
         .step_time = statistics_of(family.time_errors, family.time_ids, family.time_missing),
         .memory = statistics_of(family.memory_errors, family.memory_ids, family.memory_missing),
         .out_of_memory = family.out_of_memory,
         .twins = twins_of(members[name]),
         .left_out = family.left_out});
  }
  result.step_time = statistics_of(all.time_errors, all.time_ids, all.time_missing);
  result.memory = statistics_of(all.memory_errors, all.memory_ids, all.memory_missing);
  result.out_of_memory = all.out_of_memory;
  result.step_time_family_mean = family_mean(families, 0, mean_time_error);
  result.memory_family_mean = family_mean(families, 0, mean_memory_error);
  result.out_of_memory_family_right =
      family_mean(families, 1, [](const Collected& family, double& figure) {
        figure = family.out_of_memory.right();
        return family.out_of_memory.true_positive + family.out_of_memory.false_negative > 0;
      });
  result.inside_interval = share_inside(runs, predictions);
  result.megatron_16_bits = megatron_16_bits(runs, predictions);
  return result;
}

}  // namespace rehearse
