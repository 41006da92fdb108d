#include "app/result.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/ensure.h"
#include "plan/noun_tables.h"
#include "plan/units.h"

namespace rehearse {
namespace {

struct PartName {
  const char* key;
  const char* label;
};

PartName part_name(WorkKind kind) {
  switch (kind) {
    case WorkKind::Gemm:
      return {"gemm", "matrix products"};
    case WorkKind::Attention:
      return {"attention", "attention"};
    case WorkKind::Elementwise:
      return {"elementwise", "element-wise operators"};
    case WorkKind::Recompute:
      return {"recompute", "recomputed forward"};
    case WorkKind::Optimizer:
      return {"optimizer", "optimizer"};
    case WorkKind::TensorComm:
      break;
  }
  return {"tensor", "tensor communication"};
}

PartName part_name(CommKind kind) {
  switch (kind) {
    case CommKind::Tensor:
      return {"tensor", "tensor communication"};
    case CommKind::Context:
      return {"context", "context communication"};
    case CommKind::Data:
      return {"data", "gradient reduction"};
    case CommKind::Parameter:
      return {"parameter", "parameter gathers"};
    case CommKind::Pipeline:
      return {"pipeline", "pipeline transfers"};
    case CommKind::Control:
      return {"control", "scalars (gradient norm)"};
    case CommKind::Expert:
      return {"expert", "dispatch to experts and back"};
    case CommKind::Host:
      return {"host_memory", "copies to and work of the host"};
  }
  return {"?", "?"};
}

void add_scaled(DeviceMetrics& sum, const DeviceMetrics& device, double weight) {
  for (std::size_t i = 0; i < sum.work_s.size(); ++i) sum.work_s[i] += weight * device.work_s[i];
  for (std::size_t i = 0; i < sum.exposed_s.size(); ++i) {
    sum.exposed_s[i] += weight * device.exposed_s[i];
    sum.hidden_s[i] += weight * device.hidden_s[i];
    sum.bytes[i] += weight * device.bytes[i];
  }
  sum.bubble_s += weight * device.bubble_s;
  sum.waiting_s += weight * device.waiting_s;
  sum.host_s += weight * device.host_s;
  sum.slowed_s += weight * device.slowed_s;
}

/// The usable plan with the least step time other than `excluded`; the first of equals.
std::optional<std::size_t> fastest(const std::vector<PlanOutcome>& plans,
                                   std::optional<std::size_t> excluded) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (i == excluded || !is_usable(plans[i])) continue;
    if (!best || plans[i].metrics.step_time_s < plans[*best].metrics.step_time_s) best = i;
  }
  return best;
}

}  // namespace

std::optional<std::size_t> VariantResult::winner() const { return fastest(plans, std::nullopt); }

const VariantResult* RunResult::base_of(std::size_t scenario) const {
  for (const VariantResult& variant : variants)
    if (variant.scenario == scenario && variant.index == scenarios[scenario].first_variant)
      return &variant;
  return nullptr;
}

std::vector<TimePart> time_parts(const DeviceMetrics& metrics) {
  std::vector<TimePart> parts;
  const auto work = [&](WorkKind kind) { return metrics.work_s[static_cast<std::size_t>(kind)]; };
  for (int i = 0; i < kWorkKindCount; ++i) {
    const auto kind = static_cast<WorkKind>(i);
    if (kind == WorkKind::TensorComm) continue;  // communication that folding made computation
    parts.push_back({TimeGroup::Compute, part_name(kind).key, part_name(kind).label, work(kind)});
  }
  for (int i = 0; i < kCommKindCount; ++i) {
    const auto kind = static_cast<CommKind>(i);
    double seconds = metrics.exposed_s[static_cast<std::size_t>(i)];
    if (kind == CommKind::Tensor) seconds += work(WorkKind::TensorComm);
    parts.push_back(
        {TimeGroup::Communication, part_name(kind).key, part_name(kind).label, seconds});
  }
  parts.push_back({TimeGroup::Idle, "bubble", "pipeline bubble", metrics.bubble_s});
  parts.push_back({TimeGroup::Idle, "waiting", "waiting for other ranks", metrics.waiting_s});
  parts.push_back({TimeGroup::Idle, "host", "waiting for the host", metrics.host_s});
  return parts;
}

double sum_of(const std::vector<TimePart>& parts, TimeGroup group) {
  double sum_s = 0;
  for (const TimePart& part : parts)
    if (part.group == group) sum_s += part.seconds;
  return sum_s;
}

double balance_gain(const BalanceComparison& comparison, const BalanceWay& way) {
  return comparison.ways.front().step_time_s / way.step_time_s - 1;
}

DeviceMetrics mean_device(const PlanOutcome& outcome) {
  ensure(outcome.devices.size() == outcome.metrics.devices.size(), "each device is measured");
  double members = 0;
  for (const Device& device : outcome.devices) members += device.members;
  DeviceMetrics mean;
  for (std::size_t i = 0; i < outcome.devices.size(); ++i)
    add_scaled(mean, outcome.metrics.devices[i], outcome.devices[i].members / members);
  return mean;
}

const StageReport& fullest_stage(const PlanOutcome& outcome) {
  ensure(!outcome.stages.empty(), "a possible plan has stages");
  const auto fill = [](const StageReport& stage) {
    return stage.memory.total_bytes() / stage.memory_capacity_bytes;
  };
  std::size_t fullest = 0;
  for (std::size_t i = 1; i < outcome.stages.size(); ++i)
    if (fill(outcome.stages[i]) > fill(outcome.stages[fullest])) fullest = i;
  return outcome.stages[fullest];
}

std::string plan_summary(const Plan& plan) {
  std::string text = fmt::format("tp {}", plan.tp);
  if (plan.tensor_rows > 1)
    text += fmt::format(" as {}×{}", plan.tensor_rows, plan.tp / plan.tensor_rows);
  text += fmt::format(" · pp {}", plan.pp);
  if (plan.virtual_stages > 1) text += fmt::format("×{}", plan.virtual_stages);
  text += fmt::format(" · dp {}", plan.dp);
  if (plan.cp > 1)
    text += fmt::format(" · cp {}{}", plan.cp,
                        plan.context == ContextKind::AllToAll ? " all-to-all"
                        : plan.context_balanced               ? ""
                                                              : " unbalanced");
  if (plan.ep > 1) text += fmt::format(" · ep {}", plan.ep);
  if (plan.pp > 1) text += fmt::format(" · {}", name_of(schedule_names(), plan.schedule));
  text += fmt::format(" · micro-batch {}", plan.micro_batch);
  if (plan.zero > 0) text += fmt::format(" · ZeRO-{}", plan.zero);
  if (shard_ranks(plan) < plan.dp) text += fmt::format(" in shards of {}", plan.shard);
  if (plan.sequence_parallel) text += " · sequence parallel";
  text += fmt::format(" · recompute {} · {}", name_of(recompute_names(), plan.recompute),
                      name_of(precision_names(), plan.precision));
  return text;
}

std::string why_it_wins(const VariantResult& variant) {
  const auto first = fastest(variant.plans, std::nullopt);
  if (!first) return "";
  const std::string name = variant.plans[*first].plan.name;
  const auto second = fastest(variant.plans, first);
  if (!second)
    return variant.plans.size() > 1 ? fmt::format("{} is the only plan that fits.", name) : "";

  const PlanOutcome& best = variant.plans[*first];
  const PlanOutcome& next = variant.plans[*second];
  const auto best_parts = time_parts(mean_device(best));
  const auto next_parts = time_parts(mean_device(next));
  std::size_t largest = 0;
  const auto saved_s = [&](std::size_t i) { return next_parts[i].seconds - best_parts[i].seconds; };
  for (std::size_t i = 1; i < best_parts.size(); ++i)
    if (saved_s(i) > saved_s(largest)) largest = i;
  const double ratio = next.metrics.step_time_s / best.metrics.step_time_s;
  if (ratio < 1.0005 || saved_s(largest) <= 0)
    return fmt::format("{} and {} are equally fast.", name, next.plan.name);
  const double spent_s = best_parts[largest].seconds;
  return fmt::format(
      "{} is {:.2f} times as fast as {}, the next: a GPU spends {} a step on {} instead of {}.",
      name, ratio, next.plan.name, spent_s > 0 ? format_seconds(spent_s) : "no time",
      best_parts[largest].label, format_seconds(next_parts[largest].seconds));
}

bool is_infeasible(const RunResult& result) {
  return !result.variants.empty() &&
         std::none_of(result.variants.begin(), result.variants.end(),
                      [](const VariantResult& variant) { return variant.winner().has_value(); });
}

}  // namespace rehearse
