#pragma once
#include <memory>

#include "plan/rank_map.h"
#include "plan/schedule.h"
#include "runtime/communicator.h"

namespace rehearse {

/// The groups that one rank belongs to.
struct RankGroups {
  /// All ranks of the world make theirs in the same order. `traffic` counts for all groups.
  RankGroups(World& world, const Plan& plan, const Schedule& schedule, bool tied_embeddings,
             TrafficCount& traffic);

  Coordinates at;
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> context;
  std::unique_ptr<Communicator> data;    ///< ranks that hold the same weights: data and context
  std::unique_ptr<Communicator> stages;  ///< of one replica, in order
  std::unique_ptr<Communicator> norm;    ///< ranks that update different weights
  /// Stages that hold copies of weights: first and last with a tied table, or mirror images. A
  /// rank without a partner is alone.
  std::unique_ptr<Communicator> copies;
  std::unique_ptr<Communicator> world;
};

}  // namespace rehearse
