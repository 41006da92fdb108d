// Defaults of training programs, each with the place that decides it:
//   Megatron-LM         megatron/training/arguments.py
//   Megatron-DeepSpeed  the same of its fork; deepspeed/runtime/zero/config.py, runtime/engine.py
//   FSDP                torch.distributed.fsdp, as LLM Foundry calls it
//   torchtitan          job_config.py, distributed/parallel_dims.py, its Llama 3 training files
//   nanotron            config/parallelism_config.py ("conservative defaults")
//   rehearse            runtime/train/runnable.cpp

#include "planner/framework_defaults.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/noun_tables.h"

namespace rehearse {
namespace {

/// TransformerEngine's and PyTorch's flash attention need tensor cores of Ampere.
constexpr int kAmpere = 80;
/// DeepSpeed's reduce_bucket_size, in elements.
constexpr double kDeepspeedBucketElements = 5e8;

class DefaultFiller {
 public:
  DefaultFiller(Plan& plan, const GpuSpec& gpu) : plan_(plan), gpu_(gpu) {}

  std::vector<std::string> run() {
    switch (plan_.framework) {
      case Framework::Generic:
        break;
      case Framework::Megatron:
        fill_megatron();
        break;
      case Framework::MegatronDeepspeed:
        fill_megatron_deepspeed();
        break;
      case Framework::LlmFoundryFsdp:
        fill_fsdp();
        break;
      case Framework::Torchtitan:
        fill_torchtitan();
        break;
      case Framework::Nanotron:
        fill_nanotron();
        break;
      case Framework::Rehearse:
        fill_rehearse();
        break;
    }
    return std::move(sentences_);
  }

 private:
  bool is_stated(const std::string& field) const {
    return std::find(plan_.stated.begin(), plan_.stated.end(), field) != plan_.stated.end();
  }

  template <class T>
  void fill(const char* field, T& target, const T& value, const std::string& text,
            const char* because) {
    if (is_stated(field)) return;
    target = value;
    sentences_.push_back(fmt::format("{}: {} = {}, because {}",
                                     name_of(framework_names(), plan_.framework), field, text,
                                     because));
  }
  void fill(const char* field, bool& target, bool value, const char* because) {
    fill(field, target, value, value ? "true" : "false", because);
  }
  void fill(const char* field, int& target, int value, const char* because) {
    fill(field, target, value, std::to_string(value), because);
  }
  void fill(const char* field, Precision& target, Precision value, const char* because) {
    fill(field, target, value, name_of(precision_names(), value), because);
  }
  void fill_attention(AttentionKernel value, const char* because) {
    fill("attention", plan_.attention, value, name_of(attention_names(), value), because);
  }

  /// Of weights and activations outside of fp8 products.
  Precision half() const {
    return plan_.precision == Precision::Fp8 ? Precision::Bf16 : plan_.precision;
  }
  bool data_ranks_share() const { return plan_.zero > 0; }

  void fill_megatron_dropout() {
    fill("dropout", plan_.dropout, 0.1, "0.1",
         "hidden_dropout and attention_dropout are 0.1 where nothing is given");
  }

  void fill_megatron() {
    fill_megatron_dropout();
    if (gpu_.compute_capability >= kAmpere)
      fill_attention(AttentionKernel::Flash,
                     "transformer_impl is Transformer Engine, which takes a flash kernel");
    else
      fill_attention(AttentionKernel::Plain, "flash kernels need Ampere");
    fill("gradient_precision", plan_.gradient_precision,
         half() == Precision::Fp16 ? Precision::Fp16 : Precision::Fp32,
         half() == Precision::Fp16 ? "accumulate_allreduce_grads_in_fp32 is off with fp16"
                                   : "bf16 switches accumulate_allreduce_grads_in_fp32 on");
    fill("overlap/gradients", plan_.overlap.gradients, false, "overlap_grad_reduce is off");
    if (data_ranks_share())
      fill("overlap/parameters", plan_.overlap.parameters, false, "overlap_param_gather is off");
    if (plan_.pp > 1)
      fill("overlap/pipeline", plan_.overlap.pipeline, plan_.virtual_stages > 1,
           plan_.virtual_stages > 1 ? "overlap_p2p_comm is on with interleaving"
                                    : "overlap_p2p_comm is switched off without interleaving");
    if (plan_.tp == 1) return;
    fill("overlap/tensor", plan_.overlap.tensor, true,
         "async_tensor_model_parallel_allreduce is on");
    fill("overlap/tensor_pieces", plan_.overlap.tensor_pieces, false, "tp_comm_overlap is off");
  }

  void fill_megatron_deepspeed() {
    fill_megatron_dropout();
    fill_attention(AttentionKernel::Plain, "use_flash_attn is off");
    const bool sums_in_fp32 = half() == Precision::Bf16 && plan_.zero == 0;
    fill("gradient_precision", plan_.gradient_precision, sums_in_fp32 ? Precision::Fp32 : half(),
         sums_in_fp32 ? "DeepSpeed sums bf16 gradients in fp32 without ZeRO"
                      : "grad_accum_dtype is that of the weights");
    fill("overlap/gradients", plan_.overlap.gradients, plan_.zero == 3,
         "overlap_comm is on with ZeRO-3 alone");
    fill("bucket", plan_.bucket_bytes, kDeepspeedBucketElements * bytes_of(half()),
         fmt::format("{:.0f} MB", kDeepspeedBucketElements * bytes_of(half()) * 1e-6),
         "reduce_bucket_size is 5e8 elements");
    if (plan_.pp > 1)
      fill("overlap/pipeline", plan_.overlap.pipeline, false, "its pipeline waits for each send");
    if (plan_.tp > 1)
      fill("overlap/tensor", plan_.overlap.tensor, false,
           "it forked before tensor collectives went beside products");
  }

  void fill_fsdp() {
    fill("zero", plan_.zero, 3, "sharding_strategy is FULL_SHARD");
    if (plan_.zero < 3) return;
    fill("reshard_after_forward", plan_.reshard_after_forward, true,
         "sharding_strategy is FULL_SHARD");
    fill("prefetch", plan_.prefetch, 1, "limit_all_gathers allows one gather ahead");
    fill("reduce_every_micro_batch", plan_.reduce_every_micro_batch, true,
         "gradients are reduced in each backward outside of no_sync");
    fill("gradient_precision", plan_.gradient_precision, half(),
         "reduce_dtype is that of the weights where none is given");
  }

  void fill_torchtitan() {
    fill("zero", plan_.zero, 3, "data_parallel_shard_degree is -1: all data ranks");
    const bool alone = plan_.pp == 1;
    if (plan_.zero == 3)
      fill("reshard_after_forward", plan_.reshard_after_forward, alone,
           alone ? "fsdp_reshard_after_forward is \"default\": yes without a pipeline"
                 : "fsdp_reshard_after_forward is \"default\": not with a pipeline");
    if (plan_.zero >= 2)
      fill("reduce_every_micro_batch", plan_.reduce_every_micro_batch, alone,
           alone ? "each backward reduces"
                 : "pipeline stages reduce with their last micro-batch alone");
    fill("gradient_precision", plan_.gradient_precision, Precision::Fp32,
         "mixed_precision_reduce is float32");
    fill("recompute", plan_.recompute, Recompute::Operators, "operators",
         "its training files select checkpointing by operator (selective, op)");
    if (plan_.tp == 1) return;
    fill("sequence_parallel", plan_.sequence_parallel, true,
         "its tensor parallelism always splits the sequence");
    fill("overlap/tensor", plan_.overlap.tensor, false, "DTensor waits for its collectives");
    fill("overlap/tensor_pieces", plan_.overlap.tensor_pieces, false,
         "enable_async_tensor_parallel is off");
  }

  void fill_nanotron() {
    fill("gradient_precision", plan_.gradient_precision, Precision::Fp32,
         "its training files set accumulate_grad_in_fp32");
    if (plan_.pp > 1)
      fill("schedule", plan_.schedule, ScheduleKind::Gpipe, "gpipe",
           "pp_engine is all-forward-all-backward");
    if (plan_.tp == 1) return;
    fill("sequence_parallel", plan_.sequence_parallel, false, "tp_mode is ALL_REDUCE");
    fill("overlap/tensor", plan_.overlap.tensor, false, "tp_linear_async_communication is off");
  }

  void fill_rehearse() {
    fill("gradient_precision", plan_.gradient_precision, Precision::Fp32,
         "the runner adds gradients up in fp32");
    fill_attention(AttentionKernel::Flash, "the runner's attention is a flash kernel");
    fill("dropout", plan_.dropout, 0.0, "0", "the runner has none");
  }

  Plan& plan_;
  const GpuSpec& gpu_;
  std::vector<std::string> sentences_;
};

}  // namespace

std::vector<std::string> fill_framework_defaults(Plan& plan, const GpuSpec& gpu) {
  return DefaultFiller(plan, gpu).run();
}

std::vector<std::string> framework_cost_sentences(Framework framework,
                                                  const FrameworkCosts& costs) {
  std::vector<std::string> sentences;
  const auto say = [&](bool applies, const std::string& text) {
    if (applies)
      sentences.push_back(fmt::format("{}: {}", name_of(framework_names(), framework), text));
  };
  const KernelHabits& kernels = costs.kernels;
  say(costs.launch_s > 0, fmt::format("the host takes {:.0f} µs to issue an operator and {:.0f} µs "
                                      "more a tensor collective (fitted to published runs)",
                                      costs.launch_s * 1e6, costs.collective_host_s * 1e6));
  say(kernels.attention_forward != 1 || kernels.attention_backward != 1,
      fmt::format("attention kernels take {:.2f} times the profile's time forward, {:.2f} backward",
                  kernels.attention_forward, kernels.attention_backward));
  say(kernels.gradient_pass_bytes > 0,
      fmt::format("weights' gradients pass memory once more, {:.0f} bytes a parameter",
                  kernels.gradient_pass_bytes));
  say(costs.fragmentation > 0,
      fmt::format("its allocator holds {:.0f} % beside the tensors", 100 * costs.fragmentation));
  say(costs.activation_overhead > 0,
      fmt::format("activations take {:.0f} % more, by operators that are not fused",
                  100 * costs.activation_overhead));
  say(costs.logit_bytes > 0,
      fmt::format("the loss holds {:.0f} bytes a logit more", costs.logit_bytes));
  say(costs.reduction_buffer_bytes > 0,
      fmt::format("reduction buffers hold {:.0f} bytes a parameter", costs.reduction_buffer_bytes));
  return sentences;
}

}  // namespace rehearse
