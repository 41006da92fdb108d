#pragma once
#include <string>
#include <vector>

#include "kernels/memory_overheads.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/schedule.h"
#include "plan/workload.h"

namespace rehearse {

struct MemoryPart {
  std::string name;  ///< "weights", "gradients", "optimizer", "activations", …
  double bytes = 0;
};

/// Peak memory of one rank of a stage with its parts; all tensor and data ranks of a stage hold
/// the same.
struct StageMemory {
  int stage = 0;
  std::vector<MemoryPart> parts;
  double total_bytes() const;
  int in_flight = 0;      ///< most micro-batch·chunk activations held at once
  double host_bytes = 0;  ///< of one rank, in its host's memory
};

/// Memory of every stage. Sources: ZeRO (arXiv 1910.02054) for states, Korthikanti et al. 2022
/// (arXiv 2205.05198) for activations, by summing each layer's saved tensors over the schedule's
/// micro-batches in flight. `overheads`: memory beside tensors where it is stated, else as usual.
std::vector<StageMemory> stage_memory(const Model& model, const Plan& plan,
                                      const Workload& workload, const Schedule& schedule,
                                      const MemoryOverheads& overheads = MemoryOverheads());

}  // namespace rehearse
