#pragma once
#include "planner/framework.h"
#include "strategies/memory.h"

namespace rehearse {

/// Bytes of a stage: what stays between steps, what a step adds, context and libraries; with what
/// the framework holds beside the tensors of strategies/memory.h.
struct StageBytes {
  double standing = 0, passing = 0, beside = 0;
};
StageBytes framework_bytes_of_stage(const StageMemory& memory, const Model& model, const Plan& plan,
                                    int seq_len, const FrameworkCosts& costs);
/// What the framework's allocator takes from the device for a stage's tensors.
double reserved_bytes(const StageBytes& bytes, const FrameworkCosts& costs);

/// Adds what the framework holds beside the tensors as a part of its own, where there is any.
void add_framework_memory(StageMemory& memory, const Model& model, const Plan& plan, int seq_len,
                          const FrameworkCosts& costs);

}  // namespace rehearse
