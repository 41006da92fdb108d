#pragma once
#include <memory>

#include "runtime/train/trainer.h"

namespace rehearse {

/// Tokens without meaning; their labels are those behind them.
SampleReader made_up_text(std::int64_t vocab);

/// Memory for the trainer of one of the world's ranks: all that its steps will take, so that none
/// of them allocates any. The rank has made a step by itself for it (solo_world.h), before any
/// group is made; so its kernels are loaded too, and their workspace has its size. Nothing else
/// stays.
std::shared_ptr<TensorPool> warmed_pool(const PlanFile& file, const TrainOptions& options,
                                        const World& world, ComputeDevice& device);

}  // namespace rehearse
