#include "planner/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "plan/ensure.h"
#include "plan/noun_tables.h"
#include "plan/plan_schedule.h"
#include "plan/rank_map.h"
#include "planner/evidence.h"
#include "planner/framework_defaults.h"
#include "planner/framework_memory.h"
#include "planner/framework_notes.h"
#include "planner/gpu_costs.h"
#include "planner/hardware_faults.h"
#include "sim/mixed_steps.h"
#include "sim/simulate.h"
#include "sim/update_rate.h"
#include "strategies/attention_load.h"
#include "strategies/batch_shares.h"
#include "strategies/layer_split.h"

namespace rehearse {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// The smallest memory of each stage's GPUs.
std::vector<double> stage_capacities(const Plan& plan, const Cluster& cluster) {
  const RankMap ranks(plan);
  std::vector<double> capacities(static_cast<std::size_t>(plan.pp), INFINITY);
  for (int r = 0; r < ranks.size(); ++r) {
    double& capacity = capacities[static_cast<std::size_t>(ranks.coordinates(Rank{r}).pipeline)];
    capacity = std::min(capacity, cluster.gpu(ranks.gpu(Rank{r})).memory_bytes);
  }
  return capacities;
}

/// Steps of each replica that are simulated where replicas do not wait for each other.
constexpr int kStepsAtOwnPace = 8;
/// A larger bound on staleness is not waited for: fast replicas run free as long as is simulated.
constexpr int kMostStepsAhead = 16;

class Evaluation {
 public:
  Evaluation(const Model& model, const Workload& workload, const Cluster& cluster,
             const EvaluationOptions& options)
      : model_(model),
        workload_(workload),
        cluster_(cluster),
        options_(options),
        framework_(options.framework) {
    if (workload_.seq_len == 0) workload_.seq_len = model.max_seq_len;
  }

  PlanOutcome run(const Plan& plan) {
    if (!prepare(plan)) return std::move(outcome_);
    if (!outcome_.fits && !options_.simulate_when_too_big) return std::move(outcome_);
    simulate_step();
    compare_shares();
    compare_layers();
    fill_rates();
    return std::move(outcome_);
  }

  PlanOutcome inspect(const Plan& plan) {
    prepare(plan);
    return std::move(outcome_);
  }

 private:
  /// False where the plan cannot be.
  bool prepare(const Plan& plan) {
    outcome_.plan = plan;
    take_up_framework();
    outcome_.plan = resolve(outcome_.plan, cluster_.gpu_count());
    outcome_.faults = plan_faults(outcome_.plan, model_, workload_, cluster_.gpu_count());
    add_hardware_faults(outcome_.plan, cluster_.spec(), outcome_.faults);
    outcome_.notes = framework_notes(outcome_.plan);
    if (!outcome_.faults.empty()) return false;

    share_batch();
    const auto count = micro_batches(outcome_.plan, workload_.global_batch);
    schedule_ = plan_schedule(outcome_.plan, static_cast<int>(count));
    if (outcome_.plan.balanced_split) balance_layers();
    fill_memory();
    check_host_memory();
    return outcome_.faults.empty();
  }

  /// A plan that names its framework has that one's defaults and costs. The first GPU speaks for
  /// all: frameworks are set up once for a whole run.
  void take_up_framework() {
    Plan& plan = outcome_.plan;
    if (plan.framework == Framework::Generic) return;
    const GpuSpec& gpu = cluster_.spec().groups.front().node.gpu;
    framework_sentences_ = fill_framework_defaults(plan, gpu);
    const FrameworkCosts given = framework_;
    framework_ = framework_costs(plan.framework, plan, gpu);
    framework_.computing = given.computing;
    framework_.host = given.host;
    if (options_.calibrated) framework_.relative_error = given.relative_error;
    for (std::string& sentence : framework_cost_sentences(plan.framework, framework_))
      framework_sentences_.push_back(std::move(sentence));
  }

  /// Each GPU of a node may be of the stage that leaves the most to its host.
  void check_host_memory() {
    double most_bytes = 0;
    for (const StageReport& stage : outcome_.stages)
      most_bytes = std::max(most_bytes, stage.memory.host_bytes);
    if (most_bytes <= 0) return;
    for (const NodeGroup& group : cluster_.spec().groups) {
      const double needed = most_bytes * group.node.gpus, there = group.node.host_memory_bytes;
      if (there > 0 && needed > there)
        outcome_.faults.push_back(
            {.pointer = "/offload",
             .message = fmt::format("{:.0f} GB are offloaded by the GPUs of a node, and its host "
                                    "has {:.0f} GB",
                                    needed * 1e-9, there * 1e-9),
             .hint = "offload less, or shard it over more data ranks"});
    }
  }

  /// What profiles state of the memory beside tensors; of mixed GPUs the larger.
  MemoryOverheads stated_overheads() {
    MemoryOverheads stated;
    for (const NodeGroup& group : cluster_.spec().groups)
      stated = larger_of(stated, gpu_memory_overheads(group.node.gpu, options_.profile_files));
    if (const std::string text = stated_text(stated); !text.empty())
      framework_sentences_.push_back("memory beside tensors: " + text);
    return stated;
  }

  void fill_memory() {
    std::vector<StageMemory> memory =
        stage_memory(model_, outcome_.plan, workload_, schedule_, stated_overheads());
    const std::vector<double> capacities = stage_capacities(outcome_.plan, cluster_);
    ensure(memory.size() == capacities.size(), "memory is told for each stage");
    for (std::size_t s = 0; s < memory.size(); ++s) {
      const double capacity = capacities[s];
      if (outcome_.plan.framework != Framework::Generic)
        add_framework_memory(memory[s], model_, outcome_.plan, workload_.seq_len, framework_);
      if (memory[s].total_bytes() > capacity) outcome_.fits = false;
      outcome_.stages.push_back({.stage = static_cast<int>(s),
                                 .time = {},
                                 .memory = std::move(memory[s]),
                                 .memory_capacity_bytes = capacity});
    }
  }

  /// One cost model a node group, made when first asked for.
  const std::vector<const CostModel*>& cost_models() {
    if (!cost_models_.empty()) return cost_models_;
    const double launch_s = host_launch_s(framework_, model_, outcome_.plan, workload_.seq_len);
    for (const NodeGroup& group : cluster_.spec().groups) {
      owned_models_.push_back(framework_cost_model(
          gpu_cost_model(group.node.gpu, options_.profile_files), framework_, launch_s));
      logs_.push_back(std::make_unique<EvidenceLog>(*owned_models_.back()));
      cost_models_.push_back(logs_.back().get());
    }
    return cost_models_;
  }

  /// Shares of the batch by speed: by what prices and the cluster say of it or, where shares are
  /// dealt out again during the run, by what is measured then. What they are compared with is kept:
  /// even shares, and of measured ones those by stated speed.
  void share_batch() {
    Plan& plan = outcome_.plan;
    const bool by_speed = plan.batch_split == BatchSplit::BySpeed;
    const bool measured = plan.rebalance_every > 0;
    if (plan.dp == 1) return;
    const std::int64_t count = workload_.global_batch / plan.micro_batch;
    Plan even = plan;
    even.batch_split = BatchSplit::Even;
    even.rebalance_every = 0;
    even.replica_micro_batches.clear();
    const bool can_be_even = count % plan.dp == 0;
    if (!plan.replica_micro_batches.empty()) {
      way_of_shares_ = "given";
      if (can_be_even) others_.push_back({"even", even});
      return;
    }
    if (!by_speed && !measured) return;
    const auto shares = [&](const Spread& spread) {
      std::vector<ReplicaPace> paces;
      for (const std::vector<double>& stages :
           replica_stage_times(model_, plan, workload_, cluster_, cost_models(), spread))
        paces.push_back(replica_pace(stages, plan));
      return batch_shares(paces, count);
    };
    Plan stated = even;
    stated.replica_micro_batches = shares(Spread{0, 1});
    if (can_be_even) others_.push_back({"even", even});
    if (measured) others_.push_back({"by stated speed", stated});
    if (by_speed && measured)
      before_ = others_.size() - 1;
    else if (can_be_even)
      before_ = 0;
    way_of_shares_ = measured ? "by measured speed" : "by stated speed";
    plan.replica_micro_batches =
        measured ? shares(options_.lowering.spread) : stated.replica_micro_batches;
  }

  /// The step of another way to share out the same work; 0 where it cannot be.
  double step_with(const Plan& plan) const {
    EvaluationOptions options = options_;
    options.keep_timeline = false;
    options.compare_balance = false;
    const PlanOutcome other = Evaluation(model_, workload_, cluster_, options).run(plan);
    return other.faults.empty() ? other.metrics.step_time_s : 0;
  }

  /// What uneven shares of the batch gain over others.
  void compare_shares() {
    if (others_.empty() || !options_.compare_balance) return;
    BalanceComparison comparison{"micro-batches of replicas", {}};
    double before_s = 0;
    for (std::size_t i = 0; i < others_.size(); ++i) {
      const double step_s = step_with(others_[i].second);
      if (step_s <= 0) continue;
      comparison.ways.push_back({others_[i].first, step_s, false});
      if (i == before_) before_s = step_s;
    }
    const double after_s = outcome_.metrics.step_time_s;
    comparison.ways.push_back({way_of_shares_, after_s, true});
    if (before_s > 0) say_shares(before_s, after_s, comparison);
    if (comparison.ways.size() > 1) outcome_.balance.push_back(std::move(comparison));
    if (outcome_.plan.updates.weighting == Weighting::Even)
      outcome_.assumptions.emplace_back(
          "gradients of replicas count alike, so that samples of those with fewer count more");
  }

  void say_shares(double before_s, double after_s, BalanceComparison& comparison) {
    const UnevenShares shares{outcome_.plan, others_[before_].second, after_s, before_s};
    outcome_.assumptions.push_back(shares_sentence(shares, workload_));
    const double steps = steps_of_run(workload_);
    if (outcome_.plan.rebalance_every > 0 && steps > outcome_.plan.rebalance_every)
      comparison.ways.push_back({fmt::format("mean of the run's {:.0f} steps", steps),
                                 mean_step_s(shares, steps), false});
  }

  /// What the exact split of layers gains over the even one.
  void compare_layers() {
    if (!balances_layers_ || !options_.compare_balance) return;
    Plan even = outcome_.plan;
    even.layer_split.clear();
    even.batch_split = BatchSplit::Even;
    even.rebalance_every = 0;
    const double even_s = step_with(even);
    if (even_s <= 0) return;
    outcome_.balance.push_back({"layers of stages",
                                {{"as even as whole numbers allow", even_s, false},
                                 {"balanced", outcome_.metrics.step_time_s, true}}});
  }

  void balance_layers() {
    const SplitProblem problem =
        split_problem(model_, outcome_.plan, workload_, cluster_, cost_models());
    outcome_.plan.layer_split = balanced_split(problem);
    balances_layers_ = true;
    outcome_.plan.balanced_split = false;
  }

  void simulate_step() {
    const std::vector<const CostModel*>& models = cost_models();
    const Stopwatch lowering;
    LoweringOptions lowering_options = options_.lowering;
    lowering_options.transfers_stop_host |= framework_.transfers_stop_host;
    lowering_options.scatter_transfers |= framework_.scatter_transfers;
    LoweredStep step = lower({.model = model_,
                              .plan = outcome_.plan,
                              .workload = workload_,
                              .cluster = cluster_,
                              .schedule = schedule_,
                              .cost_models = models},
                             lowering_options);
    outcome_.phases.lowering_s = lowering.seconds() - step.pricing_s;
    outcome_.phases.pricing_s = step.pricing_s;

    const Stopwatch simulation;
    SimulationOptions simulation_options;
    simulation_options.interference.compute_share = step.compute_share;
    simulation_options.host_step_s = framework_.host * framework_.step_host_s;
    const Updates& updates = outcome_.plan.updates;
    const bool at_own_pace = updates.synchrony != Synchrony::Synchronous && outcome_.plan.dp > 1;
    const int warm_up = updates.synchrony == Synchrony::BoundedStale
                            ? 4 * std::min(updates.staleness, kMostStepsAhead)
                            : 0;
    if (at_own_pace) simulation_options.steps = kStepsAtOwnPace + warm_up;
    const SimulationRecord record = simulate(step.graph, simulation_options);
    outcome_.metrics = measure(step.graph, record);
    outcome_.updates_per_s = 1 / outcome_.metrics.step_time_s;
    if (at_own_pace) {
      const UpdateRate rate = update_rate(step.graph, record, warm_up);
      restate_for_rate(step.graph, rate, outcome_.metrics);
      outcome_.updates_per_s = rate.updates_per_s;
      outcome_.mean_staleness = rate.mean_staleness;
      step.assumptions.push_back(fmt::format(
          "{:.3g} updates/s with gradients {:.1f} updates old on average; a step stands for one "
          "update of each replica",
          rate.updates_per_s, rate.mean_staleness));
    }
    if (updates.aggregation == Aggregation::LocalSgd && updates.period > 1)
      mix_local_steps(simulation_options);
    if (options_.keep_timeline) outcome_.timeline = expand_timeline(step.graph, record);
    outcome_.phases.simulation_s = simulation.seconds();

    outcome_.assumptions = std::move(framework_sentences_);
    for (std::string& sentence : step.assumptions)
      outcome_.assumptions.push_back(std::move(sentence));
    outcome_.executed_flops = step.executed_flops;
    fill_evidence(step.seconds_by_source);
    say_evidence(step.seconds_by_source);
    say_calibration();
    outcome_.devices = std::move(step.graph.devices);
    outcome_.links = std::move(step.graph.links);
    fill_stage_times();
    fill_used_links();
  }

  /// Of every `period` steps of local SGD one averages weights: the time between is a mean.
  void mix_local_steps(const SimulationOptions& simulation_options) {
    LoweringOptions options = options_.lowering;
    options.local_step = true;
    const LoweredStep step = lower({.model = model_,
                                    .plan = outcome_.plan,
                                    .workload = workload_,
                                    .cluster = cluster_,
                                    .schedule = schedule_,
                                    .cost_models = cost_models()},
                                   options);
    const StepMetrics local = measure(step.graph, simulate(step.graph, simulation_options));
    mix_metrics(local, outcome_.plan.updates.period, outcome_.metrics);
  }

  /// The busiest device speaks for its stage; the first of equals.
  void fill_stage_times() {
    std::vector<double> busiest_s(outcome_.stages.size(), -1);
    for (std::size_t d = 0; d < outcome_.devices.size(); ++d) {
      const auto stage = static_cast<std::size_t>(outcome_.devices[d].stage);
      const DeviceMetrics& metrics = outcome_.metrics.devices[d];
      if (metrics.busy_s() <= busiest_s[stage]) continue;
      busiest_s[stage] = metrics.busy_s();
      outcome_.stages[stage].time = metrics;
    }
  }

  void fill_used_links() {
    std::vector<LinkMetrics> links = outcome_.metrics.links;
    std::stable_sort(links.begin(), links.end(), [](const LinkMetrics& a, const LinkMetrics& b) {
      return a.utilisation > b.utilisation;
    });
    for (const LinkMetrics& metrics : links) {
      if (metrics.bytes <= 0) break;
      const SimLink& simulated = outcome_.links[static_cast<std::size_t>(metrics.link)];
      const Link& link = cluster_.links()[static_cast<std::size_t>(simulated.representative.value)];
      outcome_.used_links.push_back({.name = link.name(),
                                     .kind = link_kind_name(link.kind),
                                     .members = simulated.members,
                                     .bandwidth_bytes_per_s = simulated.bandwidth_bytes_per_s,
                                     .bytes = metrics.bytes,
                                     .utilisation = metrics.utilisation});
    }
  }

  void fill_rates() {
    const double step_s = outcome_.metrics.step_time_s;
    ensure(std::isfinite(step_s) && step_s > 0, "a simulated step takes a finite time");
    const double tokens = double(workload_.global_batch) * workload_.seq_len;
    outcome_.tokens_per_s = tokens / step_s;
    outcome_.model_flops =
        training_flops(model_, tokens, workload_.seq_len, AttentionCount::CausalHalf);
    // Pairs that borders of documents and a window leave out are no work of the model's.
    const double share = attention_load(model_, outcome_.plan, workload_).pair_share;
    const double attention_flops =
        outcome_.model_flops - training_flops(model_, tokens, 0, AttentionCount::CausalHalf);
    outcome_.model_flops -= (1 - share) * attention_flops;
    for (int rank = 0; rank < world_size(outcome_.plan); ++rank)
      outcome_.peak_flops += peak_flops_of(cluster_.gpu(GpuId{rank}), outcome_.plan.precision);

    outcome_.mfu = outcome_.model_flops / (step_s * outcome_.peak_flops);
    outcome_.hfu = outcome_.executed_flops / (step_s * outcome_.peak_flops);
  }

  void fill_evidence(const std::array<double, kCostSourceCount>& seconds_by_source) {
    double total_s = 0;
    for (double seconds : seconds_by_source) total_s += seconds;
    if (total_s <= 0) return;
    for (std::size_t i = 0; i < seconds_by_source.size(); ++i)
      outcome_.evidence_share[i] = seconds_by_source[i] / total_s;
  }

  void say_evidence(const std::array<double, kCostSourceCount>& seconds_by_source) {
    std::vector<const EvidenceLog*> logs;
    for (const auto& log : logs_) logs.push_back(log.get());
    outcome_.prices = price_evidence(logs, seconds_by_source);
    outcome_.expected_error = expected_error(framework_.relative_error, options_.calibrated,
                                             outcome_.plan.framework, outcome_.prices);
    for (std::string& sentence : evidence_sentences(outcome_.prices))
      outcome_.assumptions.push_back(std::move(sentence));
  }

  void say_calibration() {
    const FrameworkCosts& framework = framework_;
    if (framework.computing == 1 && framework.host == 1) return;
    char text[160];
    std::snprintf(text, sizeof text,
                  "calibrated: operators take %.3g and their launches %.3g times the modelled time",
                  framework.computing, framework.host);
    outcome_.assumptions.emplace_back(text);
  }

  const Model& model_;
  Workload workload_;
  const Cluster& cluster_;
  const EvaluationOptions& options_;
  FrameworkCosts framework_;  ///< the options', or those of the framework that the plan names
  std::vector<std::string> framework_sentences_;
  PlanOutcome outcome_;
  Schedule schedule_;
  /// Other ways to share out the batch, that the plan's is compared with, and which of them comes
  /// before the first rebalancing.
  std::vector<std::pair<std::string, Plan>> others_;
  std::size_t before_ = static_cast<std::size_t>(-1);
  std::string way_of_shares_;
  bool balances_layers_ = false;
  std::vector<std::unique_ptr<CostModel>> owned_models_;
  std::vector<std::unique_ptr<EvidenceLog>> logs_;  ///< one a cost model
  std::vector<const CostModel*> cost_models_;
};

}  // namespace

PlanOutcome inspect(const Model& model, const Workload& workload, const Cluster& cluster,
                    const Plan& plan) {
  const EvaluationOptions options;
  return Evaluation(model, workload, cluster, options).inspect(plan);
}

PlanOutcome evaluate(const Model& model, const Workload& workload, const Cluster& cluster,
                     const Plan& plan, const EvaluationOptions& options) {
  return Evaluation(model, workload, cluster, options).run(plan);
}

}  // namespace rehearse
