#pragma once
#include <array>
#include <string>
#include <vector>

#include "plan/timeline_file.h"
#include "runtime/train/trainer.h"

namespace rehearse {

/// Parts of a rank's peak memory, as the simulation calls them (strategies/memory.cpp): tensors
/// that stay; those of a step at its fullest moment; what the pool holds beside them; scratch
/// memory of kernels and libraries; the rest that is taken of the device, by its context and
/// communicators, and by other ranks on the same GPU.
inline constexpr std::array<const char*, 7> kMemoryParts{
    "weights", "gradients", "optimizer", "activations", "idle buffers", "workspace", "framework"};

/// Peak bytes of each part so far. A device that cannot tell has nothing in the last two.
std::vector<double> peak_memory(Trainer& trainer, ComputeDevice& device);

/// As timelines have it; parts without bytes are left out.
RankMemory rank_memory(int rank, int stage, const std::vector<double>& parts);

/// "1.2 GB: weights 0.3 GB, …" of the fullest of the ranks.
std::string fullest_rank_text(const std::vector<std::vector<double>>& ranks);

}  // namespace rehearse
