#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cost_model.h"
#include "plan/choice_tables.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "topologies/hardware.h"

namespace rehearse {

/// What a framework's own memory figure counts.
enum class MemoryFigure : std::uint8_t {
  Allocated,  ///< tensors alive at the fullest moment (torch.cuda.max_memory_allocated)
  Reserved,   ///< what the allocator took from the device for them (max_memory_reserved)
  Device,     ///< all that is taken on the device, context and libraries included (nvidia-smi)
  Standing,   ///< tensors that stay between steps: the peak counter is reset after the backward
};

/// How a framework runs operators otherwise than the fused kernels that prices are made from.
struct KernelHabits {
  /// Time of flash attention, relative to the profile's kernel.
  double attention_forward = 1, attention_backward = 1;
  /// Traffic of operators that are several kernels, relative to the least a fused one moves.
  double rope = 1, activation_forward = 1, activation_backward = 1, cross_entropy = 1;
  double cast_forward = 1, cast_backward = 1;
  /// Bytes a weight that passes beside its gradient product move in each micro-batch: the product
  /// writes 16 bits, and something else adds, converts or copies them. 0: the product itself adds.
  double gradient_pass_bytes = 0;
};

/// What a step takes and holds beside its kernels and tensors, by what causes it. One set a
/// framework, never one a run; the source of each constant is beside it in framework.cpp.
struct FrameworkCosts {
  KernelHabits kernels;
  double launch_s = 0;  ///< host time to issue one operator of a layer; 0: the cost model's
  bool blocking_launches = false;    ///< the host waits for each operator (CUDA_LAUNCH_BLOCKING=1)
  bool transfers_stop_host = false;  ///< between stages: the host waits until they are done
  bool scatter_transfers = false;    ///< between stages: tensor ranks send a share each
  double collective_host_s = 0;      ///< host time to issue one collective of a tensor group
  double step_host_s = 0;            ///< next batch, loss to the host, logging, scaling, timers
  double fragmentation = 0;        ///< share of tensors' bytes that the allocator holds beside them
  double activation_overhead = 0;  ///< share of activations kept twice by operators not fused
  /// Sequence parallelism: inputs of column-parallel products are kept as gathered, not as split.
  bool keeps_gathered_inputs = false;
  /// Bytes a logit held at the loss beside its 16-bit and one fp32 copy.
  double logit_bytes = 0;
  /// Bytes a parameter beside weights, gradients and optimizer: buffers that data ranks reduce.
  double reduction_buffer_bytes = 0;
  /// Bytes for each parameter whose optimizer state a rank holds: gradients copied to fp32 for the
  /// optimizer in one piece.
  double gradient_copy_bytes = 0;
  /// fp8 plans keep weights of fp8 products in fp8 alone, and gather them so; else 16 bits beside.
  bool fp8_weights_alone = false;
  MemoryFigure memory_figure = MemoryFigure::Allocated;
  double computing = 1, host = 1;  ///< factors of operators' and launches' times (calibration.h)
  /// Half width of the 90 % interval of step times, as a factor. Not stated: nine in ten of all
  /// published runs, each family alike, predicted without what their frameworks do otherwise.
  double relative_error = 0.33;
};
FrameworkCosts framework_costs(Framework framework, const Plan& plan, const GpuSpec& gpu);

/// Host time to issue an operator of the plan's layers: the framework's, and with tensor
/// parallelism that of the layer's collectives, spread over its operators. 0: not stated.
double host_launch_s(const FrameworkCosts& framework, const Model& model, const Plan& plan,
                     int seq_len);

/// Prices of operators as a framework runs them, with another host time for each (0: as it is).
std::unique_ptr<CostModel> framework_cost_model(std::unique_ptr<CostModel> costs,
                                                const FrameworkCosts& framework, double launch_s);

/// Fills what the framework decides and a published configuration does not say: attention kernel,
/// dropout, precision of gradients, buckets.
Plan framework_plan(Framework framework, Plan plan, const Model& model, const GpuSpec& gpu);

}  // namespace rehearse
