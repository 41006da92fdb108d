#include "app/result_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "app/command_line.h"
#include "plan/ensure.h"
#include "plan/json_value.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

JsonValue number(double value) {
  ensure(std::isfinite(value), "results hold finite numbers only");
  return JsonValue::of(value);
}

const char* fidelity_name(Fidelity fidelity) {
  switch (fidelity) {
    case Fidelity::Folded:
      return "folded";
    case Fidelity::Replicas:
      return "replicas";
    case Fidelity::Full:
      return "full";
  }
  return "?";
}

const char* group_key(TimeGroup group) {
  switch (group) {
    case TimeGroup::Compute:
      return "compute";
    case TimeGroup::Communication:
      return "exposed_communication";
    case TimeGroup::Idle:
      return "idle";
  }
  return "?";
}

/// Seconds of a step by part; all of them add up to the step.
JsonValue breakdown_json(const DeviceMetrics& metrics) {
  JsonValue json = JsonValue::object();
  for (const TimePart& part : time_parts(metrics)) {
    JsonValue* group = json.find(group_key(part.group));
    if (group == nullptr) group = &json.add(group_key(part.group), JsonValue::object());
    group->add(part.key, number(part.seconds));
  }
  return json;
}

JsonValue by_comm_kind(const std::array<double, kCommKindCount>& values) {
  JsonValue json = JsonValue::object();
  std::size_t kind = 0;
  for (const TimePart& part : time_parts({}))
    if (part.group == TimeGroup::Communication) json.add(part.key, number(values[kind++]));
  return json;
}

JsonValue device_json(const Device& device, const DeviceMetrics& metrics) {
  JsonValue json = JsonValue::object();
  json.add("rank", JsonValue::of(device.representative.value));
  json.add("ranks_alike", JsonValue::of(device.members));
  json.add("stage", JsonValue::of(device.stage));
  json.add("replica", JsonValue::of(device.replica));
  json.add("breakdown_s", breakdown_json(metrics));
  json.add("hidden_communication_s", by_comm_kind(metrics.hidden_s));
  json.add("slowed_by_communication_s", number(metrics.slowed_s));
  json.add("sent_bytes", by_comm_kind(metrics.bytes));
  return json;
}

JsonValue stage_json(const StageReport& stage) {
  JsonValue json = JsonValue::object();
  json.add("stage", JsonValue::of(stage.stage));
  JsonValue parts = JsonValue::object();
  for (const MemoryPart& part : stage.memory.parts) parts.add(part.name, number(part.bytes));
  json.add("memory_bytes", std::move(parts));
  json.add("peak_memory_bytes", number(stage.memory.total_bytes()));
  json.add("memory_capacity_bytes", number(stage.memory_capacity_bytes));
  json.add("micro_batches_in_flight", JsonValue::of(stage.memory.in_flight));
  return json;
}

JsonValue link_json(const LinkReport& link) {
  JsonValue json = JsonValue::object();
  json.add("name", JsonValue::of(link.name));
  json.add("kind", JsonValue::of(link.kind));
  json.add("links_alike", JsonValue::of(link.members));
  json.add("bandwidth_bytes_per_s", number(link.bandwidth_bytes_per_s));
  json.add("bytes", number(link.bytes));
  json.add("utilisation", number(link.utilisation));
  return json;
}

JsonValue fault_json(const PlanFault& fault) {
  JsonValue json = JsonValue::object();
  json.add("pointer", JsonValue::of(fault.pointer));
  json.add("message", JsonValue::of(fault.message));
  json.add("hint", JsonValue::of(fault.hint));
  return json;
}

JsonValue texts_json(const std::vector<std::string>& texts) {
  JsonValue json = JsonValue::list();
  for (const std::string& text : texts) json.items.push_back(JsonValue::of(text));
  return json;
}

JsonValue operator_json(const PricedOperator& op) {
  JsonValue json = JsonValue::object();
  json.add("operator", JsonValue::of(op.name));
  json.add("evidence", JsonValue::of(cost_source_name(op.source)));
  json.add("expected_error", number(op.relative_error));
  return json;
}

/// The 90 % interval of the step time, and where it is from.
JsonValue expected_error_json(const PlanOutcome& outcome) {
  const double factor = 1 + outcome.expected_error.relative_error;
  JsonValue json = JsonValue::object();
  json.add("relative_error", number(outcome.expected_error.relative_error));
  JsonValue interval = JsonValue::list();
  interval.items.push_back(number(outcome.metrics.step_time_s / factor));
  interval.items.push_back(number(outcome.metrics.step_time_s * factor));
  json.add("step_time_interval_s", std::move(interval));
  json.add("source", JsonValue::of(outcome.expected_error.source));
  return json;
}

JsonValue balance_json(const BalanceComparison& comparison) {
  JsonValue json = JsonValue::object();
  json.add("shares_out", JsonValue::of(comparison.what));
  JsonValue ways = JsonValue::list();
  for (const BalanceWay& way : comparison.ways) {
    JsonValue each = JsonValue::object();
    each.add("how", JsonValue::of(way.name));
    each.add("is_plan", JsonValue::of(way.is_used));
    each.add("step_time_s", number(way.step_time_s));
    each.add("gain", number(balance_gain(comparison, way)));
    ways.items.push_back(std::move(each));
  }
  json.add("ways", std::move(ways));
  return json;
}

void add_step(JsonValue& json, const PlanOutcome& outcome, const VariantResult& variant) {
  json.add("step_time_s", number(outcome.metrics.step_time_s));
  json.add("expected_error", expected_error_json(outcome));
  json.add("tokens_per_s", number(outcome.tokens_per_s));
  json.add("tokens_per_s_per_gpu", number(outcome.tokens_per_s / variant.gpus));
  const double tokens = variant.variant.scenario.workload.tokens;
  if (tokens > 0) json.add("run_time_s", number(tokens / outcome.tokens_per_s));
  json.add("mfu", number(outcome.mfu));
  json.add("hfu", number(outcome.hfu));
  json.add("model_flops", number(outcome.model_flops));
  json.add("executed_flops", number(outcome.executed_flops));
  json.add("peak_flops_per_s", number(outcome.peak_flops));
  json.add("updates_per_s", number(outcome.updates_per_s));
  json.add("mean_staleness", number(outcome.mean_staleness));
  json.add("load_balance", number(outcome.metrics.load_balance));
  const DeviceMetrics mean = mean_device(outcome);
  json.add("mean_breakdown_s", breakdown_json(mean));
  json.add("mean_hidden_communication_s", by_comm_kind(mean.hidden_s));
}

/// The busiest so many links of a plan are in the document; it counts the others.
constexpr std::size_t kMostLinks = 256;

void add_details(JsonValue& json, const PlanOutcome& outcome) {
  JsonValue links = JsonValue::list(), devices = JsonValue::list();
  const std::size_t link_count = std::min(outcome.used_links.size(), kMostLinks);
  for (std::size_t i = 0; i < link_count; ++i)
    links.items.push_back(link_json(outcome.used_links[i]));
  for (std::size_t i = 0; i < outcome.devices.size(); ++i)
    devices.items.push_back(device_json(outcome.devices[i], outcome.metrics.devices[i]));
  json.add("links", std::move(links));
  json.add("links_left_out",
           JsonValue::of(static_cast<std::int64_t>(outcome.used_links.size() - link_count)));
  json.add("ranks", std::move(devices));
  JsonValue evidence = JsonValue::object();
  for (std::size_t i = 0; i < std::size(outcome.evidence_share); ++i)
    evidence.add(cost_source_name(static_cast<CostSource>(i)), number(outcome.evidence_share[i]));
  json.add("compute_time_by_evidence", std::move(evidence));
  json.add("price_error", number(outcome.prices.relative_error));
  JsonValue weakest = JsonValue::list();
  for (const PricedOperator& op : outcome.prices.weakest)
    weakest.items.push_back(operator_json(op));
  json.add("least_evidence", std::move(weakest));
  json.add("assumptions", texts_json(outcome.assumptions));
}

JsonValue plan_json(const PlanOutcome& outcome, const VariantResult& variant) {
  JsonValue json = JsonValue::object();
  json.add("name", JsonValue::of(outcome.plan.name));
  json.add("plan", plan_table().to_json(outcome.plan));
  json.add("possible", JsonValue::of(is_possible(outcome)));
  JsonValue faults = JsonValue::list();
  for (const PlanFault& fault : outcome.faults) faults.items.push_back(fault_json(fault));
  json.add("faults", std::move(faults));
  if (!is_possible(outcome)) return json;
  json.add("fits", JsonValue::of(outcome.fits));
  if (!outcome.notes.empty()) json.add("notes", texts_json(outcome.notes));
  add_step(json, outcome, variant);
  if (!outcome.balance.empty()) {
    JsonValue balance = JsonValue::list();
    for (const BalanceComparison& comparison : outcome.balance)
      balance.items.push_back(balance_json(comparison));
    json.add("balance", std::move(balance));
  }
  JsonValue stages = JsonValue::list();
  for (const StageReport& stage : outcome.stages) stages.items.push_back(stage_json(stage));
  json.add("stages", std::move(stages));
  add_details(json, outcome);
  return json;
}

JsonValue variant_json(const VariantResult& result) {
  const Scenario& scenario = result.variant.scenario;
  JsonValue json = JsonValue::object();
  json.add("index", JsonValue::of(static_cast<std::int64_t>(result.index)));
  json.add("scenario", JsonValue::of(static_cast<std::int64_t>(result.scenario)));
  json.add("name", JsonValue::of(result.variant.name));
  json.add("gpus", JsonValue::of(result.gpus));
  json.add("nodes", JsonValue::of(result.nodes));
  json.add("model", JsonValue::of(scenario.model.name));
  json.add("parameters",
           JsonValue::of(static_cast<std::int64_t>(count_parameters(scenario.model).total())));
  json.add("global_batch", JsonValue::of(scenario.workload.global_batch));
  const int seq_len =
      scenario.workload.seq_len > 0 ? scenario.workload.seq_len : scenario.model.max_seq_len;
  json.add("seq_len", JsonValue::of(seq_len));
  const auto winner = result.winner();
  json.add("winner", winner ? JsonValue::of(result.plans[*winner].plan.name) : JsonValue());
  JsonValue plans = JsonValue::list();
  for (const PlanOutcome& plan : result.plans) plans.items.push_back(plan_json(plan, result));
  json.add("plans", std::move(plans));
  return json;
}

}  // namespace

std::string result_json(const RunResult& result) {
  JsonValue json = JsonValue::object();
  json.add("schema", JsonValue::of("result/1"));
  json.add("program", JsonValue::of("rehearse " + program_version()));
  json.add("fidelity", JsonValue::of(fidelity_name(result.lowering.fidelity)));
  json.add(
      "collectives",
      JsonValue::of(result.lowering.collectives == CollectiveDetail::Fluid ? "fluid" : "stepwise"));
  JsonValue scenarios = JsonValue::list(), variants = JsonValue::list();
  for (const ScenarioSummary& scenario : result.scenarios) {
    JsonValue summary = JsonValue::object();
    summary.add("file", JsonValue::of(scenario.path));
    summary.add("title", JsonValue::of(scenario.title));
    summary.add("description", JsonValue::of(scenario.description));
    scenarios.items.push_back(std::move(summary));
  }
  for (const VariantResult& variant : result.variants)
    variants.items.push_back(variant_json(variant));
  json.add("scenarios", std::move(scenarios));
  json.add("variants", std::move(variants));
  // The layout of nlohmann's dump is what a merger of shares can reproduce with the library alone.
  return nlohmann::ordered_json::parse(to_text(json, JsonLayout::Compact)).dump(2) + "\n";
}

}  // namespace rehearse
