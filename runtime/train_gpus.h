#pragma once
#include <memory>

#include "runtime/channel.h"
#include "runtime/train/rank_place.h"
#include "runtime/train/train_request.h"

namespace rehearse {

/// GPUs that this process sees and this program can use; 0 also where it was built without CUDA.
int usable_gpus();

/// Whether ranks compute on GPUs: where asked for, and where nothing else is asked for and each of
/// so many on this machine can have one of its own. Throws std::runtime_error where they are asked
/// for and this program was built without CUDA.
bool uses_gpus(const TrainRequest& request, int ranks_here);

/// A rank's GPU, and the world of ranks on theirs. They go in the opposite order.
struct GpuRank {
  std::unique_ptr<ComputeDevice> device;
  std::unique_ptr<ChannelBackend> channels;
  std::unique_ptr<World> world;
  int sharing = 1;        ///< ranks on this GPU
  double free_bytes = 0;  ///< of its memory, before any of them took some
};
/// The GPU named, or those of the machine in turn; meets the other ranks. Throws
/// std::runtime_error.
GpuRank join_on_gpu(const TrainRequest& request, const RankPlace& place);

}  // namespace rehearse
