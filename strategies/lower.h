#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cost_model.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/schedule.h"
#include "plan/spread.h"
#include "plan/workload.h"
#include "strategies/step_graph.h"
#include "topologies/cluster.h"

namespace rehearse {

/// How much of the cluster is simulated. All three give the same times where the work is
/// symmetric.
enum class Fidelity : std::uint8_t {
  Folded,    ///< one of identical replicas, tensor groups as one device; all flows counted
  Replicas,  ///< every stage of every replica, tensor groups as one device
  Full,      ///< every GPU
};

/// Collectives across nodes as one long flow an edge, or expanded into their steps.
enum class CollectiveDetail : std::uint8_t { Fluid, Stepwise };

struct LoweringOptions {
  Fidelity fidelity = Fidelity::Folded;
  CollectiveDetail collectives = CollectiveDetail::Fluid;
  bool local_step = false;  ///< of local SGD: a step after which weights are not averaged
  /// Transfers between stages that do not run beside computation keep the host waiting, which
  /// issues nothing ahead of them.
  bool transfers_stop_host = false;
  /// Tensor ranks that hold the same activations send a share each, and gather on arrival
  /// (Narayanan et al. 2021, arXiv 2104.04473, §4.1). Else each sends all of them.
  bool scatter_transfers = false;
  Spread spread{0, 1};  ///< ordinary differences between GPUs; none where nobody asks
};

/// The inputs of a simulated step. `cost_models` has one entry a node group of the cluster.
struct LoweringInput {
  const Model& model;
  const Plan& plan;  ///< resolved and without faults
  const Workload& workload;
  const Cluster& cluster;
  const Schedule& schedule;
  std::vector<const CostModel*> cost_models;
};

struct LoweredStep {
  StepGraph graph;
  std::vector<std::string> assumptions;      ///< sentences: what was chosen where nothing was said
  std::vector<std::int32_t> device_of_rank;  ///< each rank's device in the graph
  /// Share of a GPU's SMs that a running communication of each kind holds: NCCL's channels over
  /// the SMs. Goes into SimulationOptions::interference.
  std::array<double, kCommKindCount> compute_share{};
  double executed_flops = 0;  ///< of the whole step on all ranks, recomputation included
  std::array<double, kCostSourceCount>
      seconds_by_source{};  ///< rank-seconds of computing, by CostSource
  double pricing_s = 0;     ///< wall time spent pricing operators, for --verbose
};

/// Turns a plan on a cluster into the graph of one training step.
LoweredStep lower(const LoweringInput& input, const LoweringOptions& options);

/// A pipeline with given times and no cluster: stage s takes forward_s[s] etc. a chunk, a hop
/// hop_s. For closed forms and published schedules.
struct PipelineTimes {
  std::vector<double> forward_s, input_gradient_s, weight_gradient_s;  ///< [stage], per chunk
  double hop_s = 0;
};
StepGraph pipeline_graph(const Schedule& schedule, const PipelineTimes& times);

}  // namespace rehearse
