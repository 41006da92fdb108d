#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cost_model.h"
#include "plan/field_table.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "topologies/hardware.h"

namespace rehearse {

/// Training programs that published runs were made with; Generic: not stated.
enum class Framework : std::uint8_t {
  Generic,
  Megatron,
  MegatronDeepspeed,
  LlmFoundryFsdp,
  Torchtitan,
  Nanotron,
};
const Names<Framework>& framework_names();

/// What a framework's own memory figure counts.
enum class MemoryFigure : std::uint8_t {
  Allocated,  ///< tensors alive at the fullest moment (torch.cuda.max_memory_allocated)
  Reserved,   ///< what the allocator took from the device for them (max_memory_reserved)
};

/// The costs of a step that are not its kernels', by what causes them. One set a framework, never
/// one a run; the source of each constant is beside it in framework.cpp.
struct FrameworkCosts {
  double launch_s = 7.5e-6;     ///< host time to issue one operator
  double optimizer_host_s = 0;  ///< host work of the optimizer step: copies, clipping, scaling
  double data_and_log_s = 0;    ///< next batch, loss to the host, logging, timers
  double compute_rate = 1;      ///< of the sustained price: kernels it does not fuse, and gaps
  double fragmentation = 0;     ///< share of allocated bytes that the allocator holds beside them
  double reserved_extra_bytes = 0;  ///< caches and workspaces in the allocator, whatever the model
  MemoryFigure memory_figure = MemoryFigure::Allocated;
  double relative_error = 0.15;  ///< of predictions for runs it was not fitted to (90 % interval)
  double host_step_s() const { return optimizer_host_s + data_and_log_s; }
};
FrameworkCosts framework_costs(Framework framework);

/// The prices of a GPU as the framework's operators meet them.
std::unique_ptr<CostModel> with_framework(std::unique_ptr<CostModel> costs,
                                          const FrameworkCosts& framework);

/// Fills what the framework decides and a published configuration does not say: attention kernel,
/// dropout, precision of gradients, buckets.
Plan framework_plan(Framework framework, Plan plan, const Model& model, const GpuSpec& gpu);

}  // namespace rehearse
