#include "app/report_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "app/number_format.h"
#include "plan/units.h"

namespace rehearse {
namespace {

/// Above so many rows, a variant shows only its winner.
constexpr std::size_t kMostVariantRows = 60;

double largest_of(const std::vector<PlanOutcome>& plans, auto value) {
  double largest = 0;
  for (const PlanOutcome& plan : plans)
    if (is_possible(plan)) largest = std::max(largest, value(plan));
  return largest;
}

double step_of(const PlanOutcome& plan) { return plan.metrics.step_time_s; }

/// "61.2/80" in GB.
std::string memory_cell(const PlanOutcome& outcome) {
  const StageReport& stage = fullest_stage(outcome);
  const double used_gb = stage.memory.total_bytes() * 1e-9;
  return fmt::format("{:.{}f}/{:.0f}", used_gb, used_gb < 1000 ? 1 : 0,
                     stage.memory_capacity_bytes * 1e-9);
}

std::string fault_sentence(const PlanOutcome& outcome) {
  std::string text = "cannot be: " + outcome.faults[0].message;
  if (outcome.faults.size() > 1) text += fmt::format(" (+{} more)", outcome.faults.size() - 1);
  return text;
}

Tone tone_of(const PlanOutcome& outcome, bool wins) {
  return wins ? Tone::Good : is_usable(outcome) ? Tone::Plain : Tone::Bad;
}

double exposed(const DeviceMetrics& metrics, CommKind kind) {
  double seconds = metrics.exposed_s[static_cast<std::size_t>(kind)];
  if (kind == CommKind::Tensor)
    seconds += metrics.work_s[static_cast<std::size_t>(WorkKind::TensorComm)];
  return seconds;
}

std::string bar(double share) {
  constexpr double kFullBar = 40;
  std::string text;
  for (int i = 0; i < static_cast<int>(std::lround(share * kFullBar)); ++i) text += "█";
  return text;
}

}  // namespace

TextTable plans_table(const VariantResult& variant) {
  const ColumnUnit time = time_unit(largest_of(variant.plans, step_of));
  const ColumnUnit rate = token_rate_unit(
      largest_of(variant.plans, [](const PlanOutcome& plan) { return plan.tokens_per_s; }));
  const bool has_context =
      std::any_of(variant.plans.begin(), variant.plans.end(),
                  [](const PlanOutcome& outcome) { return outcome.plan.cp > 1; });
  std::vector<TextColumn> columns{{.title = "plan", .align = Align::Left, .least_width = 12},
                                  {.title = "step", .unit = time.unit},
                                  {.title = "tokens", .unit = rate.unit},
                                  {.title = "MFU", .unit = "%"},
                                  {.title = "compute", .unit = "%"},
                                  {.title = "tensor", .unit = "%"},
                                  {.title = "data", .unit = "%"},
                                  {.title = "pipe", .unit = "%"},
                                  {.title = "bubble", .unit = "%"},
                                  {.title = "wait", .unit = "%"},
                                  {.title = "balance", .unit = "max/avg", .droppable = 1},
                                  {.title = "memory", .unit = "GB/GPU"},
                                  {.title = "fits"}};
  if (has_context) columns.insert(columns.begin() + 6, {.title = "context", .unit = "%"});
  TextTable table(std::move(columns));
  const auto winner = variant.winner();
  for (std::size_t i = 0; i < variant.plans.size(); ++i) {
    const PlanOutcome& plan = variant.plans[i];
    const bool wins = winner == i;
    const std::string name = (wins ? "* " : "  ") + plan.plan.name;
    if (!is_possible(plan)) {
      table.add_sentence_row(name, fault_sentence(plan), Tone::Bad);
      continue;
    }
    const DeviceMetrics mean = mean_device(plan);
    const auto share = [&](double seconds) { return percent(seconds / step_of(plan)); };
    const auto parts = time_parts(mean);
    // Gradient reduction, parameter gathers and the scalars beside them: what data ranks exchange.
    const double data_s = exposed(mean, CommKind::Data) + exposed(mean, CommKind::Parameter) +
                          exposed(mean, CommKind::Control);
    std::vector<std::string> cells{
        name,
        time.cell(step_of(plan)),
        rate.cell(plan.tokens_per_s),
        percent(plan.mfu),
        share(sum_of(parts, TimeGroup::Compute)),
        share(exposed(mean, CommKind::Tensor) + exposed(mean, CommKind::Expert)),
        share(data_s),
        share(exposed(mean, CommKind::Pipeline)),
        share(mean.bubble_s),
        share(mean.waiting_s + mean.host_s + exposed(mean, CommKind::Host)),
        fmt::format("{:.2f}", plan.metrics.load_balance),
        memory_cell(plan),
        plan.fits ? "yes" : "NO"};
    if (has_context) cells.insert(cells.begin() + 6, share(exposed(mean, CommKind::Context)));
    table.add_row(std::move(cells), tone_of(plan, wins));
  }
  return table;
}

std::string plan_list(const std::vector<PlanOutcome>& plans) {
  std::size_t width = 0;
  for (const PlanOutcome& plan : plans)
    width = std::max(width, display_width(printable(plan.plan.name)));
  std::string text;
  for (const PlanOutcome& plan : plans) {
    std::string name = printable(plan.plan.name);
    name += std::string(width - display_width(name), ' ');
    text += wrapped("  " + name + "  " + plan_summary(plan.plan), 100, width + 4) + "\n";
  }
  return text;
}

TextTable breakdown_table(const PlanOutcome& outcome) {
  ColumnUnit time = time_unit(step_of(outcome));
  ++time.decimals;  // parts are smaller than the step
  const DeviceMetrics mean = mean_device(outcome);
  TextTable table({{.title = "part", .align = Align::Left},
                   {.title = "time", .unit = time.unit},
                   {.title = "share", .unit = "%"},
                   {.title = "hidden", .unit = time.unit},
                   {.title = "", .align = Align::Left, .droppable = 1}});
  std::size_t comm_kind = 0;
  for (const TimePart& part : time_parts(mean)) {
    const bool is_comm = part.group == TimeGroup::Communication;
    const double hidden_s = is_comm ? mean.hidden_s[comm_kind++] : 0;
    if (part.seconds == 0 && hidden_s == 0) continue;
    const double share = part.seconds / step_of(outcome);
    table.add_row({part.label, time.cell(part.seconds), percent(share),
                   hidden_s > 0 ? time.cell(hidden_s) : "", bar(share)},
                  part.group == TimeGroup::Compute ? Tone::Plain : Tone::Warning);
  }
  table.add_row({"step", time.cell(step_of(outcome)), percent(1), "", ""}, Tone::Strong);
  return table;
}

TextTable memory_table(const PlanOutcome& outcome) {
  const StageReport& stage = fullest_stage(outcome);
  const ColumnUnit unit = bytes_unit(stage.memory_capacity_bytes);
  TextTable table({{.title = "part", .align = Align::Left},
                   {.title = "memory", .unit = unit.unit},
                   {.title = "of GPU", .unit = "%"},
                   {.title = "", .align = Align::Left, .droppable = 1}});
  const auto add = [&](const std::string& name, double bytes, Tone tone, bool has_bar) {
    const double share = bytes / stage.memory_capacity_bytes;
    table.add_row({name, unit.cell(bytes), percent(share), has_bar ? bar(share) : ""}, tone);
  };
  for (const MemoryPart& part : stage.memory.parts)
    if (part.bytes > 0) add(part.name, part.bytes, Tone::Plain, true);
  add("peak", stage.memory.total_bytes(), Tone::Strong, false);
  add("capacity", stage.memory_capacity_bytes, Tone::Plain, false);
  return table;
}

TextTable balance_table(const std::vector<PlanOutcome>& plans) {
  double longest_s = 0;
  for (const PlanOutcome& plan : plans)
    for (const BalanceComparison& comparison : plan.balance)
      for (const BalanceWay& way : comparison.ways)
        longest_s = std::max(longest_s, way.step_time_s);
  ColumnUnit time = time_unit(longest_s);
  ++time.decimals;  // ways differ by per cents
  TextTable table({{.title = "plan", .align = Align::Left, .least_width = 12},
                   {.title = "shares out", .align = Align::Left},
                   {.title = "how", .align = Align::Left, .least_width = 12},
                   {.title = "step", .unit = time.unit},
                   {.title = "gain", .unit = "%"}});
  for (const PlanOutcome& plan : plans)
    for (const BalanceComparison& comparison : plan.balance)
      for (const BalanceWay& way : comparison.ways) {
        const bool is_first = &way == &comparison.ways.front();
        table.add_row({is_first ? plan.plan.name : "", is_first ? comparison.what : "",
                       (way.is_used ? "* " : "  ") + way.name, time.cell(way.step_time_s),
                       is_first ? "" : fmt::format("{:+.1f}", 100 * balance_gain(comparison, way))},
                      way.is_used ? Tone::Strong : Tone::Plain);
      }
  return table;
}

TextTable links_table(const PlanOutcome& outcome) {
  std::vector<LinkReport> busiest;  // of each kind; used_links has the busiest first
  for (const LinkReport& link : outcome.used_links)
    if (std::none_of(busiest.begin(), busiest.end(),
                     [&](const LinkReport& known) { return known.kind == link.kind; }))
      busiest.push_back(link);
  double largest_bytes = 0;
  for (const LinkReport& link : busiest) largest_bytes = std::max(largest_bytes, link.bytes);
  const ColumnUnit bytes = bytes_unit(largest_bytes);
  TextTable table({{.title = "link", .align = Align::Left},
                   {.title = "alike"},
                   {.title = "bandwidth", .unit = "GB/s"},
                   {.title = "carries", .unit = std::string(bytes.unit) + "/step"},
                   {.title = "busy", .unit = "%"}});
  for (const LinkReport& link : busiest)
    table.add_row({link.name, std::to_string(link.members),
                   fmt::format("{:.1f}", link.bandwidth_bytes_per_s * 1e-9), bytes.cell(link.bytes),
                   percent(link.utilisation)});
  return table;
}

namespace {

const PlanOutcome* find_plan(const VariantResult& variant, const std::string& name) {
  for (const PlanOutcome& plan : variant.plans)
    if (plan.plan.name == name) return &plan;
  return nullptr;
}

void add_variant_row(TextTable& table, const VariantResult& variant, std::size_t plan_index,
                     const VariantResult* base, bool names_variant) {
  const PlanOutcome& plan = variant.plans[plan_index];
  const bool wins = variant.plans.size() > 1 && variant.winner() == plan_index;
  const std::string name = names_variant ? variant.variant.name : "";
  const std::string plan_name = (wins ? "* " : "  ") + plan.plan.name;
  if (!is_possible(plan)) {
    table.add_sentence_row(name, plan_name + " " + fault_sentence(plan), Tone::Bad);
    return;
  }
  const PlanOutcome* before = base == nullptr ? nullptr : find_plan(*base, plan.plan.name);
  const bool comparable = before != nullptr && is_possible(*before);
  table.add_row({name, plan_name, std::to_string(variant.gpus), format_seconds(step_of(plan)),
                 comparable ? difference(step_of(plan), step_of(*before)) : "",
                 token_rate_unit(plan.tokens_per_s).cell(plan.tokens_per_s) + " " +
                     token_rate_unit(plan.tokens_per_s).unit,
                 comparable ? difference(plan.tokens_per_s, before->tokens_per_s) : "",
                 fmt::format("{:.0f}", plan.tokens_per_s / variant.gpus), percent(plan.mfu),
                 memory_cell(plan), plan.fits ? "yes" : "NO"},
                tone_of(plan, false));
}

}  // namespace

TextTable variants_table(const RunResult& result, std::size_t scenario) {
  TextTable table({{.title = "variant", .align = Align::Left, .least_width = 14},
                   {.title = "plan", .align = Align::Left, .least_width = 10},
                   {.title = "GPUs"},
                   {.title = "step"},
                   {.title = "change"},
                   {.title = "tokens"},
                   {.title = "change", .droppable = 1},
                   {.title = "per GPU", .unit = "1/s", .droppable = 3},
                   {.title = "MFU", .unit = "%"},
                   {.title = "memory", .unit = "GB/GPU", .droppable = 2},
                   {.title = "fits"}});
  const VariantResult* base = result.base_of(scenario);
  std::size_t rows = 0;
  for (const VariantResult& variant : result.variants)
    if (variant.scenario == scenario) rows += variant.plans.size();
  for (const VariantResult& variant : result.variants) {
    if (variant.scenario != scenario || &variant == base) continue;
    if (rows <= kMostVariantRows) {
      for (std::size_t i = 0; i < variant.plans.size(); ++i)
        add_variant_row(table, variant, i, base, i == 0);
    } else {
      add_variant_row(table, variant, variant.winner().value_or(0), base, true);
    }
  }
  return table;
}

}  // namespace rehearse
