// What frameworks add to a step. Three kinds of figures stand here, and each says which it is:
//
// Counted. Bytes and copies follow from what the framework's code does (KernelHabits below), and
// factors between attention kernels from their authors' papers. No run had a part in them.
//
// Fitted to runs. Host times of an operator, 26 to 48 operators a layer of these models, are those
// with which the published runs of one family come out:
//   Megatron-DeepSpeed  vTrain's single-node runs on A100 (family vtrain_single): layers of 1,024
//                       hidden with micro-batches of one take 3.35 ms whatever their number and
//                       the data ranks, and 0.2 ms more with 6 collectives.
//   nanotron            Hugging Face's benchmark runs on H100 (both families): layers take 4.4 to
//                       4.6 ms with micro-batches of one at every width and every tensor group of
//                       4 or 8; so is the share of its activations, 0.4, that it reserves beside
//                       the saved tensors.
// So are the half widths of intervals: nine in ten of each framework's published runs lie inside.
// Predictions of those families are no test of these figures. Sustained rates of Hopper and
// Blackwell (kernels/gpu_generation.cpp) are fitted to runs of Megatron-LM.
//
// So is a fifth of the tensors' bytes that Megatron-DeepSpeed's allocator holds beside them:
// BLOOM's memory figures are of the device (bloom_search). Reduction buckets and communicators of
// its many groups, which are not counted one by one, are in it.
//
// Assumed. Other frameworks' host time is the cost model's own, 5 to 10 µs for eager PyTorch:
// their published runs are bound by their devices.
//
// nanotron's memory figure does not change with the micro-batch and is 20 bytes a parameter with
// several data ranks, 18 with one, 10 + 14/dp with ZeRO-1: states and bf16 buckets of 2 bytes.

#include "planner/framework.h"

#include <algorithm>
#include <utility>

#include "kernels/layer.h"

namespace rehearse {
namespace {

constexpr int kHopper = 90;

/// FlashAttention 3, which profiles of Hopper hold, is 1.5 to 2.0 times as fast as FlashAttention 2
/// forward and 1.5 to 1.75 times backward (Shah et al. 2024, arXiv 2407.08608): the middles.
constexpr double kFlash2Forward = 1.75, kFlash2Backward = 1.62;
/// FlashAttention 2, which the profile of A100 holds, is 1.3 to 1.5 times as fast as the Triton
/// implementation before it (Dao 2023, arXiv 2307.08691, section 4.1).
constexpr double kTritonFlash = 1.4;

/// Gradients that a pass of their own adds to an fp32 buffer: reads 2 + 4, writes 4.
constexpr double kFp32AccumulateBytes = 10;
/// DeepSpeed's bf16 optimizer makes an fp32 copy of each gradient first (update_hp_grads): reads 2,
/// writes 4, reads 4 + 4, writes 4.
constexpr double kCopiedAccumulateBytes = 18;
/// The same into a 16-bit gradient, as autograd accumulates.
constexpr double kHalfAccumulateBytes = 6;
/// FSDP of PyTorch 1 and 2.0: gradients are laid into the flat parameter's, 2 + 2, and the reduced
/// shard is small.
constexpr double kFlatGradientBytes = 4;
/// FSDP2: each of the two gathers copies weights out (2 + 2), gradients are converted to fp32 and
/// laid out for the reduction (2 + 4).
constexpr double kShardCopyBytes = 14;

/// DeepSpeed's optimizers of 16-bit gradients flatten a rank's share and convert it to fp32 before
/// they step (fused_optimizer.py, zero/stage_1_and_2.py). 16-bit gradients live in pieces of what
/// activations have freed, so that the allocator takes the copy from the device anew.
constexpr double kFp32CopyBytes = 4;

/// cross_entropy on fp32 logits keeps the log-softmax beside them, and its backward makes their
/// gradient: two more fp32 copies.
constexpr double kUnfusedLogitBytes = 8;

/// Transformer Engine makes fp8 values where the operator before a product writes: after norms,
/// activation functions and the activation's backward. With a block of width 4h, apart remain
/// forward the input of the attention's output (1 of 1 + 1 + 1 + 4), backward all but the gradient
/// of the first product's result (5 of 3 + 1 + 4 + 1).
constexpr double kFusedCastForward = 1.0 / 7, kFusedCastBackward = 5.0 / 9;

/// torchao scales by each tensor's present maximum: every value is read once more than the 4 bytes
/// of a cast.
constexpr double kDynamicCast = 6.0 / 4;

/// Rotary positions as complex products in fp32: conversion, product and conversion back move
/// 2 + 4, 4 + 4, 4 + 2 bytes for the 2 + 2 of a fused kernel.
constexpr double kComplexRope = 5;
/// SiLU and product apart: 5 elements moved for 3 forward; backward 6 for the product, 3 for the
/// SiLU, 4 to join both gradients, for 5.
constexpr double kEagerGateForward = 5.0 / 3, kEagerGateBackward = 13.0 / 5;
/// The loss in fp32 steps: conversion 6, maximum 4, difference 8, exponential 8, sum 4, quotient 8
/// bytes a logit, for 26.
constexpr double kEagerLoss = 38.0 / 26;

}  // namespace

FrameworkCosts framework_costs(Framework framework, const Plan& plan, const GpuSpec& gpu) {
  FrameworkCosts costs;
  const bool hopper = gpu.compute_capability == kHopper;
  const auto flash_attention_2 = [&] {
    if (!hopper) return;
    costs.kernels.attention_forward = kFlash2Forward;
    costs.kernels.attention_backward = kFlash2Backward;
  };
  const auto fused_casts = [&] {
    costs.kernels.cast_forward = kFusedCastForward;
    costs.kernels.cast_backward = kFusedCastBackward;
  };
  switch (framework) {
    case Framework::Megatron:
      fused_casts();
      // --fp8-param-gather, and fp8_params of NeMo, which published fp8 runs used: "FP8 distributed
      // optimizer" of NVIDIA's notes on MLPerf Training 3.1 and 4.0.
      costs.fp8_weights_alone = true;
      costs.transfers_stop_host = costs.scatter_transfers = true;
      costs.relative_error = 0.16;
      break;
    case Framework::MegatronDeepspeed:
      costs.kernels.gradient_pass_bytes =
          plan.precision == Precision::Bf16 ? kCopiedAccumulateBytes : kHalfAccumulateBytes;
      costs.transfers_stop_host = costs.scatter_transfers = true;
      costs.relative_error = 0.22;
      costs.launch_s = 70e-6;
      costs.collective_host_s = 33e-6;
      costs.fragmentation = 0.2;
      if (bytes_of(plan.gradient_precision) < kFp32CopyBytes)
        costs.gradient_copy_bytes = kFp32CopyBytes;
      costs.memory_figure = MemoryFigure::Device;
      break;
    case Framework::LlmFoundryFsdp:
      flash_attention_2();
      if (gpu.compute_capability < kHopper)
        costs.kernels.attention_forward = costs.kernels.attention_backward = kTritonFlash;
      costs.relative_error = 0.18;
      costs.kernels.gradient_pass_bytes = kFlatGradientBytes;
      break;
    case Framework::Torchtitan:
      flash_attention_2();
      costs.kernels.cast_forward = costs.kernels.cast_backward = kDynamicCast;
      costs.kernels.gradient_pass_bytes = kShardCopyBytes;
      costs.relative_error = 0.52;
      costs.logit_bytes = kUnfusedLogitBytes;
      costs.memory_figure = MemoryFigure::Reserved;  // its log prints what the allocator reserved
      break;
    case Framework::Nanotron:
      flash_attention_2();
      costs.kernels.gradient_pass_bytes = kFp32AccumulateBytes;
      costs.kernels.rope = kComplexRope;
      costs.kernels.activation_forward = kEagerGateForward;
      costs.kernels.activation_backward = kEagerGateBackward;
      costs.kernels.cross_entropy = kEagerLoss;
      costs.transfers_stop_host = true;
      costs.relative_error = 0.12;
      costs.launch_s = 110e-6;
      costs.collective_host_s = 160e-6;
      costs.activation_overhead = 0.4;
      costs.keeps_gathered_inputs = true;
      costs.reduction_buffer_bytes = 2;
      costs.memory_figure = MemoryFigure::Standing;
      break;
    case Framework::Rehearse:
      // Its operators and what it holds are counted one by one (LayerShape::own_runner,
      // strategies/runner_memory.h); host times are the profile's.
    case Framework::Generic:
      break;
  }
  return costs;
}

double host_launch_s(const FrameworkCosts& framework, const Model& model, const Plan& plan,
                     int seq_len) {
  if (framework.launch_s <= 0 || plan.tp == 1) return framework.launch_s;
  const LayerShape shape = layer_shape(model, plan, seq_len);
  int operators = 0, collectives = 0;
  for (const auto& items : {layer_forward(shape), layer_backward(shape)})
    for (const LayerItem& item : items) ++(item.is_collective ? collectives : operators);
  return framework.launch_s + framework.collective_host_s * collectives / operators;
}

Plan framework_plan(Framework framework, Plan plan, const Model& model, const GpuSpec& gpu) {
  const auto is_stated = [&](const char* field) {
    return std::find(plan.stated.begin(), plan.stated.end(), field) != plan.stated.end();
  };
  // torchtitan's selective checkpointing goes by operator (selective_ac_option = "op").
  if (framework == Framework::Torchtitan && plan.recompute == Recompute::Selective)
    plan.recompute = Recompute::Operators;
  // Published Megatron runs before Hopper are from the time before flash attention, when scripts
  // had a dropout of 0.1 (Megatron-LM's examples of 2021).
  const bool megatron =
      framework == Framework::Megatron || framework == Framework::MegatronDeepspeed;
  if (megatron && gpu.compute_capability < 90) {
    if (!is_stated("attention")) plan.attention = AttentionKernel::Plain;
    if (!is_stated("dropout")) plan.dropout = 0.1;
  }
  // fp16 gradients are summed and reduced as they are (accumulate_allreduce_grads_in_fp32 is off;
  // DeepSpeed's grad_accum_dtype is that of the weights), bf16 ones in fp32.
  if (megatron && plan.precision == Precision::Fp16 && !is_stated("gradient_precision"))
    plan.gradient_precision = Precision::Fp16;
  // Megatron-LM's best practice for many experts a token is DeepEP's dispatcher ("flex"), whose
  // kernels send a token once to each node that its experts lie on, on as many nodes as there are.
  if (framework == Framework::Megatron && gpu.compute_capability >= kHopper &&
      model.experts.count > 0 && plan.ep > 1 && !is_stated("experts/node_limit"))
    plan.experts.node_limit = plan.ep;
  // Megatron-LM reduces and gathers beside its weight gradients since the code of Korthikanti et
  // al. (2022), which brought sequence parallelism; Megatron-DeepSpeed forked before. nanotron's
  // asynchronous tensor parallelism is that too, and nothing in pieces.
  const bool before = gpu.compute_capability < kHopper && !plan.sequence_parallel;
  // PyTorch's asynchronous tensor parallelism takes gathers with their product, and products with
  // their reduction, in pieces; it runs nothing beside other operators (torchtitan's report of
  // September 2024).
  if (framework == Framework::Torchtitan && !is_stated("overlap/tensor"))
    plan.overlap.tensor = false;
  const bool none =
      framework == Framework::MegatronDeepspeed || (framework == Framework::Megatron && before);
  if (none && !is_stated("overlap/tensor")) plan.overlap.tensor = false;
  if ((none || framework == Framework::Nanotron) && !is_stated("overlap/tensor_pieces"))
    plan.overlap.tensor_pieces = false;
  return plan;
}

}  // namespace rehearse
