#include "app/run_job.h"

#include <fmt/format.h>

#include <cstring>
#include <set>

#include "app/trace.h"
#include "plan/ensure.h"
#include "plan/rank_map.h"
#include "plan/timeline_file.h"
#include "planner/outcome_codec.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

/// What a worker sends: problems as text, or the cluster's size and the outcome.
constexpr char kProblems = 'P';
constexpr char kOutcome = 'O';

struct ClusterSize {
  std::int32_t gpus = 0, nodes = 0;
};

/// What a scenario says beside model, workload, cluster and plans.
EvaluationOptions options_of(EvaluationOptions options, const Scenario& scenario) {
  options.profile_files = scenario.profile_files;
  options.lowering.spread = scenario.spread;
  return options;
}

std::string work_on(const Variant& variant, std::size_t plan, const std::string& path,
                    const EvaluationOptions& options) {
  Problems problems;
  const Scenario& scenario = variant.scenario;
  const std::optional<Cluster> cluster = build_cluster(scenario.cluster, path, problems);
  if (!cluster) return kProblems + problems.text();
  const ClusterSize size{cluster->gpu_count(), cluster->node_count()};
  std::string message(1, kOutcome);
  message.append(reinterpret_cast<const char*>(&size), sizeof size);
  message += pack_outcome(evaluate(scenario.model, scenario.workload, *cluster,
                                   scenario.plans[plan], options_of(options, scenario)));
  return message;
}

std::size_t variants_used(const ScenarioFile& file, const RunRequest& request) {
  return request.what_if ? file.variants.size() : 1;
}

/// The variants of this shard, without outcomes. Shares are neighbours in the run's order, so
/// that their results join by appending.
std::vector<VariantResult> variants_of(const RunRequest& request,
                                       std::vector<ScenarioSummary>& summaries) {
  std::size_t total = 0;
  for (const ScenarioFile& file : request.files) total += variants_used(file, request);
  const auto share = [&](int i) {
    return total * static_cast<std::size_t>(i) / static_cast<std::size_t>(request.shard_count);
  };
  const std::size_t first = share(request.shard_index - 1), last = share(request.shard_index);
  std::vector<VariantResult> variants;
  std::size_t index = 0;
  for (std::size_t f = 0; f < request.files.size(); ++f) {
    const ScenarioFile& file = request.files[f];
    ensure(!file.variants.empty(), "a scenario file has the variant that it describes");
    const Scenario& base = file.variants[0].scenario;
    summaries.push_back({file.path, base.title, base.description, index});
    for (std::size_t v = 0; v < variants_used(file, request); ++v, ++index)
      if (index >= first && index < last)
        variants.push_back({.index = index, .scenario = f, .variant = file.variants[v]});
  }
  return variants;
}

std::string task_name(const RunResult& result, const VariantResult& variant, std::size_t plan) {
  return fmt::format("{}: {}, plan \"{}\"", result.scenarios[variant.scenario].path,
                     variant.variant.name, variant.variant.scenario.plans[plan].name);
}

void receive(VariantResult& variant, const std::string& message, std::set<std::string>& problems) {
  const std::string_view payload = std::string_view(message).substr(1);
  if (message.at(0) == kProblems) {
    problems.emplace(payload);
    return;
  }
  ClusterSize size;
  ensure(payload.size() >= sizeof size, "an outcome follows the size of its cluster");
  std::memcpy(&size, payload.data(), sizeof size);
  variant.gpus = size.gpus;
  variant.nodes = size.nodes;
  variant.plans.push_back(unpack_outcome(payload.substr(sizeof size)));
}

}  // namespace

std::optional<Cluster> build_cluster(const ClusterSpec& spec, const std::string& path,
                                     Problems& problems) {
  Problems found;
  Cluster cluster = Cluster::build(spec, found);
  if (found.empty()) return cluster;
  for (Problem problem : found.all()) {
    problem.file = path;
    problem.pointer = "/cluster" + problem.pointer;
    problems.add(std::move(problem));
  }
  return std::nullopt;
}

std::size_t evaluation_count(const RunRequest& request) {
  std::vector<ScenarioSummary> summaries;
  std::size_t count = 0;
  for (const VariantResult& variant : variants_of(request, summaries))
    count += variant.variant.scenario.plans.size();
  return count;
}

RunResult evaluate_all(const RunRequest& request, const std::function<void(std::size_t)>& on_done,
                       RunFaults& faults) {
  RunResult result;
  result.lowering = request.evaluation.lowering;
  result.variants = variants_of(request, result.scenarios);

  std::vector<WorkerTask> tasks;
  for (const VariantResult& variant : result.variants) {
    for (std::size_t plan = 0; plan < variant.variant.scenario.plans.size(); ++plan) {
      const std::string& path = result.scenarios[variant.scenario].path;
      tasks.push_back({task_name(result, variant, plan), [&variant, plan, &path, &request] {
                         return work_on(variant.variant, plan, path, request.evaluation);
                       }});
    }
  }
  const std::vector<std::string> messages = run_in_workers(tasks, request.jobs, on_done);

  std::set<std::string> problems;
  std::size_t next = 0;
  for (VariantResult& variant : result.variants)
    for (std::size_t plan = 0; plan < variant.variant.scenario.plans.size(); ++plan)
      receive(variant, messages[next++], problems);
  for (const std::string& text : problems) faults.text += text;
  return result;
}

namespace {

using TimelineWriter = std::function<std::string(const PlanOutcome&, const Cluster&)>;

/// Simulates one plan of a variant again, in a worker process, and writes its timeline.
std::string written_timeline(const VariantResult& variant, std::size_t plan,
                             const EvaluationOptions& options, const TimelineWriter& write) {
  const Scenario& scenario = variant.variant.scenario;
  EvaluationOptions traced = options_of(options, scenario);
  traced.keep_timeline = true;
  const WorkerTask task{"the timeline of plan \"" + scenario.plans[plan].name + "\"", [&] {
                          Problems problems;
                          const auto cluster = build_cluster(scenario.cluster, "", problems);
                          ensure(cluster.has_value(), "a cluster that was built builds again");
                          const PlanOutcome outcome =
                              evaluate(scenario.model, scenario.workload, *cluster,
                                       scenario.plans[plan], traced);
                          return write(outcome, *cluster);
                        }};
  return std::move(run_in_workers({task}, 1)[0]);
}

}  // namespace

std::string trace_of(const VariantResult& variant, std::size_t plan,
                     const EvaluationOptions& options) {
  return written_timeline(
      variant, plan, options, [](const PlanOutcome& outcome, const Cluster& cluster) {
        return chrome_trace(outcome.timeline, outcome.plan, cluster.gpus_in_node(0));
      });
}

namespace {

/// Of each rank of the timeline its stage's.
std::vector<RankMemory> memory_of(const PlanOutcome& outcome) {
  std::vector<RankMemory> ranks;
  const RankMap map(outcome.plan);
  for (const std::int32_t rank : outcome.timeline.ranks) {
    const int stage = map.coordinates(Rank{rank}).pipeline;
    RankMemory memory{.rank = rank, .stage = stage, .parts = {}};
    for (const MemoryPart& part : outcome.stages.at(static_cast<std::size_t>(stage)).memory.parts)
      memory.parts.emplace_back(part.name, part.bytes);
    ranks.push_back(std::move(memory));
  }
  return ranks;
}

}  // namespace

std::string timeline_of(const VariantResult& variant, std::size_t plan,
                        const EvaluationOptions& options) {
  return written_timeline(variant, plan, options, [](const PlanOutcome& outcome, const Cluster&) {
    return timeline_text({.made_by = "rehearse run",
                          .plan = outcome.plan.name,
                          .steps = {0},
                          .timelines = {outcome.timeline},
                          .memory = memory_of(outcome)});
  });
}

}  // namespace rehearse
