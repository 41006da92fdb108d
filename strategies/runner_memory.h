#pragma once
#include <cstdint>
#include <vector>

#include "kernels/layer.h"
#include "plan/plan.h"
#include "plan/schedule.h"

namespace rehearse {

/// What one rank of a real run (runtime/train) holds beside weights, gradients and optimizer state.
struct RunnerTensors {
  double alive_bytes = 0;  ///< tensors at the fullest moment of a step
  /// Device memory taken for them. The runner's pool keeps what is given back for the next tensor
  /// of exactly that size, so each size has as much as was ever alive of it at once.
  double pooled_bytes = 0;
  /// Scratch memory of its CUDA kernels, as it grows with the largest request.
  double scratch_bytes = 0;
};

/// Walks a stage through one step of its schedule as runtime/train does, tensor by tensor.
/// `layer_split`: layers of each piece in model order. Of context ranks, the one with most to do.
RunnerTensors runner_tensors(const LayerShape& shape, const Plan& plan, const Schedule& schedule,
                             int stage, const std::vector<int>& layer_split);

}  // namespace rehearse
