#pragma once
#include <string>
#include <vector>

#include "runtime/train/train_request.h"

namespace rehearse {

/// Starts all ranks of a plan on this machine through mpirun, each as `rehearse-device train` with
/// these arguments, and waits for them. A run that fails is started again from its last checkpoint
/// as often as asked. Returns the exit code; names the rank that vanished on stderr.
int launch_locally(const TrainRequest& request, int ranks,
                   const std::vector<std::string>& arguments);

}  // namespace rehearse
