#include <fmt/format.h>

#include "app/commands.h"
#include "app/number_format.h"
#include "app/output.h"
#include "app/report_parts.h"
#include "app/result.h"
#include "app/run_job.h"
#include "app/scenario_input.h"
#include "app/text_table.h"
#include "plan/units.h"
#include "topologies/cluster_reader.h"

namespace rehearse {
namespace {

/// What follows from one variant without simulating it.
struct Inspection {
  int gpus = 0, nodes = 0;
  std::vector<PlanOutcome> plans;
  bool any_fits() const {
    for (const PlanOutcome& plan : plans)
      if (is_usable(plan)) return true;
    return false;
  }
};

Inspection inspect_variant(const Scenario& scenario, const Cluster& cluster) {
  Inspection inspection{.gpus = cluster.gpu_count(), .nodes = cluster.node_count(), .plans = {}};
  for (const Plan& plan : scenario.plans)
    inspection.plans.push_back(inspect(scenario.model, scenario.workload, cluster, plan));
  return inspection;
}

/// What was understood of a kind of node, in units that people know.
std::string group_line(const NodeGroup& group) {
  const NodeSpec& node = group.node;
  return fmt::format("            {} × {} GPUs ({}, {}), {} of {}\n", group.count, node.gpus,
                     printable(node.gpu.name), format_binary_bytes(node.gpu.memory_bytes),
                     counted(node.nics, "NIC"), format_bit_rate(node.nic_bandwidth_bytes_per_s));
}

std::string facts_text(const ScenarioFile& file, const Scenario& scenario,
                       const Inspection& inspection, bool color) {
  const Model& model = scenario.model;
  const int seq_len = scenario.workload.seq_len > 0 ? scenario.workload.seq_len : model.max_seq_len;
  std::string text = toned(printable(file.path), Tone::Strong, color) + ": " +
                     toned("OK", Tone::Good, color) + "\n";
  text +=
      fmt::format("  model     {}: {} parameters, {} layers of {} hidden\n", printable(model.name),
                  format_count(static_cast<double>(count_parameters(model).total())), model.layers,
                  model.hidden);
  text += fmt::format("  cluster   {} on {}, {} ranks a node\n", counted(inspection.gpus, "GPU"),
                      counted(inspection.nodes, "node"), inspection.gpus / inspection.nodes);
  for (const NodeGroup& group : scenario.cluster.groups) text += group_line(group);
  text += fmt::format("  network   {}, oversubscription {} at the leaves\n",
                      name_of(fabric_kind_names(), scenario.cluster.fabric.kind),
                      scenario.cluster.fabric.oversubscription);
  text += fmt::format("  workload  {} sequences of {} tokens a step ({} tokens)\n",
                      scenario.workload.global_batch, seq_len,
                      format_count(double(scenario.workload.global_batch) * seq_len));
  text += fmt::format("  variants  {} beside the file as it stands\n", file.variants.size() - 1);
  return text;
}

TextTable memory_of_plans(const Inspection& inspection) {
  TextTable table({{.title = "plan", .align = Align::Left, .least_width = 12},
                   {.title = "ranks"},
                   {.title = "memory", .unit = "GB/GPU"},
                   {.title = "capacity", .unit = "GB/GPU"},
                   {.title = "fits"}});
  for (const PlanOutcome& outcome : inspection.plans) {
    if (!is_possible(outcome)) {
      table.add_sentence_row(outcome.plan.name, "cannot be: " + outcome.faults[0].message,
                             Tone::Bad);
      continue;
    }
    const StageReport& stage = fullest_stage(outcome);
    table.add_row(
        {outcome.plan.name, std::to_string(world_size(outcome.plan)),
         fmt::format("{:.1f}", stage.memory.total_bytes() * 1e-9),
         fmt::format("{:.1f}", stage.memory_capacity_bytes * 1e-9), outcome.fits ? "yes" : "NO"},
        outcome.fits ? Tone::Plain : Tone::Bad);
  }
  return table;
}

struct CheckedFile {
  bool has_problems = false;
  bool any_fits = false;
  std::string text;
};

CheckedFile check_file(const ScenarioFile& file, const CheckOptions& options) {
  CheckedFile checked;
  Problems problems;
  const bool color = stdout_takes_color(options.color);
  for (std::size_t v = 0; v < file.variants.size(); ++v) {
    const Scenario& scenario = file.variants[v].scenario;
    const auto cluster = build_cluster(scenario.cluster, file.path, problems);
    if (!cluster) break;  // later variants would most likely say the same again
    const Inspection inspection = inspect_variant(scenario, *cluster);
    checked.any_fits = checked.any_fits || inspection.any_fits();
    if (v > 0) continue;
    checked.text = facts_text(file, scenario, inspection, color) +
                   memory_of_plans(inspection).text(options.wide ? 0 : 100, color) + "\n" +
                   plan_list(inspection.plans);
  }
  checked.has_problems = !problems.empty();
  if (checked.has_problems) report_problems(problems);
  return checked;
}

}  // namespace

ExitCode check_command(const CheckOptions& options) {
  if (options.schema) write_result("-", scenario_json_schema(), false);
  if (options.reference) write_result("-", scenario_reference(), false);
  if (options.files.empty()) return ExitCode::Done;

  bool has_problems = false, any_fits = false;
  for (const std::string& path : options.files) {
    const auto files = read_scenarios({path});
    if (!files) {
      has_problems = true;
      continue;
    }
    const CheckedFile checked = check_file((*files)[0], options);
    has_problems = has_problems || checked.has_problems;
    any_fits = any_fits || checked.any_fits;
    if (!checked.has_problems && !options.quiet) write_result("-", checked.text, false);
  }
  if (has_problems) return ExitCode::BadInput;
  return any_fits ? ExitCode::Done : ExitCode::Infeasible;
}

}  // namespace rehearse
