#pragma once
#include <string>
#include <vector>

#include "runtime/train/train_request.h"

namespace rehearse {

/// Starts all ranks of a plan on this machine, each as `rehearse-device train` with these
/// arguments, and waits for them: through mpirun, or where they compute on GPUs, and so meet by
/// themselves (runtime/rendezvous.h), without anything else. A run that fails is started again from
/// its last checkpoint as often as asked. Returns the exit code; names the rank that vanished on
/// stderr.
int launch_locally(const TrainRequest& request, int ranks,
                   const std::vector<std::string>& arguments);

}  // namespace rehearse
