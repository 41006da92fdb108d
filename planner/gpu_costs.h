#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/cost_model.h"
#include "kernels/memory_overheads.h"
#include "topologies/hardware.h"

namespace rehearse {

/// What prices must know of a catalogue's or a scenario's GPU.
DeviceFacts device_facts(const GpuSpec& gpu);

/// Prices of a GPU in a long step: by the first of the profile files that is of its id, else by
/// its shipped profile, one scaled from its architecture, or the
/// roofline (kernels/profile_catalogue.h). Models of equal GPUs share their worked-out prices for
/// as long as the program runs, so that comparing plans prices each shape once.
/// Throws std::runtime_error where a file cannot be read or is no profile.
std::unique_ptr<CostModel> gpu_cost_model(const GpuSpec& gpu,
                                          const std::vector<std::string>& profile_files = {});

/// Memory beside tensors as the GPU's profile states it: of the first file that is of its id, else
/// of its shipped profile. Throws as gpu_cost_model.
MemoryOverheads gpu_memory_overheads(const GpuSpec& gpu,
                                     const std::vector<std::string>& profile_files = {});

}  // namespace rehearse
