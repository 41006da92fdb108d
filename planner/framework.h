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
  Device,     ///< all that is taken on the device, context and libraries included (nvidia-smi)
  Standing,   ///< tensors that stay between steps: the peak counter is reset after the backward
};

/// What a step takes and holds beside its kernels and tensors, by what causes it. One set a
/// framework, never one a run; the source of each constant is beside it in framework.cpp.
struct FrameworkCosts {
  double launch_s = 0;  ///< host time to issue one operator of a layer; 0: the cost model's
  double collective_host_s = 0;    ///< host time to issue one collective of a tensor group
  double step_host_s = 0;          ///< next batch, loss to the host, logging, scaling, timers
  double fragmentation = 0;        ///< share of tensors' bytes that the allocator holds beside them
  double activation_overhead = 0;  ///< share of activations kept twice by operators not fused
  /// Bytes a parameter beside weights, gradients and optimizer: buffers that data ranks reduce.
  double reduction_buffer_bytes = 0;
  MemoryFigure memory_figure = MemoryFigure::Allocated;
  double relative_error = 0.25;  ///< half width of the 90 % interval of step times, as a factor
};
FrameworkCosts framework_costs(Framework framework);

/// Host time to issue an operator of the plan's layers: the framework's, and with tensor
/// parallelism that of the layer's collectives, spread over its operators. 0: not stated.
double host_launch_s(const FrameworkCosts& framework, const Model& model, const Plan& plan,
                     int seq_len);

/// The same prices with another host time for each operator; 0 leaves it as it is.
std::unique_ptr<CostModel> with_launch(std::unique_ptr<CostModel> costs, double launch_s);

/// Fills what the framework decides and a published configuration does not say: attention kernel,
/// dropout, precision of gradients, buckets.
Plan framework_plan(Framework framework, Plan plan, const Model& model, const GpuSpec& gpu);

}  // namespace rehearse
