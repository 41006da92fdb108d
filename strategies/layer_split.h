#pragma once
#include <vector>

#include "kernels/cost_model.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/schedule.h"
#include "plan/spread.h"
#include "plan/workload.h"
#include "topologies/cluster.h"

namespace rehearse {

/// Layers to be spread over the stages of a pipeline, which goes at the pace of its slowest.
/// Times are of forward and backward of one micro-batch, in seconds.
struct SplitProblem {
  std::vector<double> layer_s;         ///< of each layer, in model order
  double embedding_s = 0, head_s = 0;  ///< with the first and with the last piece
  int stages = 1, chunks = 1;          ///< as a Schedule has them
  Placement placement = Placement::Loop;
  std::vector<ChunkPlace> places;  ///< as a Schedule has them
  std::vector<double> stage_pace;  ///< times what a stage takes for the same work; empty: 1
  std::vector<int> most_layers;    ///< of each piece, where memory ends; empty: no limit
};

/// Layers of each piece in model order such that the slowest stage is as fast as it can be: the
/// exact minimum. Between splits that are equally good, the pieces are as even as they can be
/// (least sum of squares). Only the first and the last piece may have no layer. Empty where the
/// limits leave no split.
/// One piece a stage: dynamic programming, O(pieces · layers²). Several: exact for layers that
/// take equal time (the next layer goes where the stage ends earliest), and for any layers on a vee
/// or both ways (pair_split.h, up to kMostPairedLayers); for others the slowest piece, not the
/// slowest sum of pieces, is the smallest possible.
std::vector<int> balanced_split(const SplitProblem& problem);

/// The times of the slowest stage under a split.
double slowest_stage_s(const SplitProblem& problem, const std::vector<int>& split);

/// The problem that a plan poses on a cluster, with operators and tensor collectives priced.
/// `cost_models` has one entry a node group. REQUIRES: the plan was resolved and checked.
SplitProblem split_problem(const Model& model, const Plan& plan, const Workload& workload,
                           const Cluster& cluster,
                           const std::vector<const CostModel*>& cost_models);

/// Seconds of forward and backward of one micro-batch at each stage of each replica,
/// [replica][stage], at the pace of the slowest GPU there, with tensor collectives. REQUIRES: as
/// split_problem.
std::vector<std::vector<double>> replica_stage_times(
    const Model& model, const Plan& plan, const Workload& workload, const Cluster& cluster,
    const std::vector<const CostModel*>& cost_models, const Spread& spread);

}  // namespace rehearse
