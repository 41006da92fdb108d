#include <fmt/format.h>

#include <map>

#include "app/commands.h"
#include "app/number_format.h"
#include "app/output.h"
#include "app/run_job.h"
#include "app/scenario_input.h"
#include "app/text_table.h"
#include "plan/units.h"

namespace rehearse {
namespace {

std::string analysis_text(const Cluster& cluster) {
  const ClusterAnalysis analysis = analyse(cluster);
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<18}{}\n", name, value);
  };
  line("GPUs", fmt::format("{} on {}", cluster.gpu_count(), counted(cluster.node_count(), "node")));
  line("graph", fmt::format("{} vertices, {} directed edges", analysis.vertices, analysis.edges));
  line("bisection",
       fmt::format("{} ({} if only NICs limited)", format_rate(analysis.bisection_bytes_per_s),
                   format_rate(analysis.full_bisection_bytes_per_s)));
  line("oversubscription", fmt::format("{:.2f} : 1", analysis.oversubscription));
  line("diameter", fmt::format("{} links, {}", analysis.diameter_hops,
                               format_seconds(analysis.diameter_latency_s)));
  line("parts", std::to_string(analysis.components));
  for (const std::string& name : analysis.disconnected) line("  cut off", printable(name));
  return text;
}

/// Links of one kind and bandwidth; the map keeps the order of kinds.
TextTable links_table(const Cluster& cluster) {
  std::map<std::pair<LinkKind, double>, std::pair<std::int64_t, double>> tiers;
  for (const Link& link : cluster.links()) {
    auto& [count, latency_s] = tiers[{link.kind, link.bandwidth_bytes_per_s}];
    ++count;
    latency_s = std::max(latency_s, link.latency_s);
  }
  TextTable table({{.title = "links", .align = Align::Left},
                   {.title = "count"},
                   {.title = "bandwidth", .unit = "GB/s each"},
                   {.title = "latency", .unit = "µs"}});
  for (const auto& [tier, facts] : tiers)
    table.add_row({link_kind_name(tier.first), std::to_string(facts.first),
                   fmt::format("{:.1f}", tier.second * 1e-9),
                   fmt::format("{:.2f}", facts.second * 1e6)});
  return table;
}

}  // namespace

ExitCode topology_command(const TopologyOptions& options) {
  refuse_existing(options.dot, options.force);
  const auto files = read_scenarios({options.scenario});
  if (!files) return ExitCode::BadInput;
  const Scenario& scenario = (*files)[0].variants[0].scenario;
  Problems problems;
  const auto cluster = build_cluster(scenario.cluster, (*files)[0].path, problems);
  if (!cluster) {
    report_problems(problems);
    return ExitCode::BadInput;
  }
  if (!options.dot.empty()) write_result(options.dot, to_dot(*cluster), options.force);
  if (options.dot == "-") return ExitCode::Done;
  const bool color = stdout_takes_color(options.color);
  write_result("-",
               toned(printable(scenario.title), Tone::Strong, color) + "\n" +
                   analysis_text(*cluster) + "\n" + links_table(*cluster).text(100, color),
               false);
  if (!options.dot.empty()) note("wrote " + options.dot + " (draw it: dot -Tsvg)");
  return ExitCode::Done;
}

}  // namespace rehearse
