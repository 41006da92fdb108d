// What training programs refuse or do not have:
//   Megatron-LM         megatron/training/arguments.py, core/pipeline_parallel/schedules.py
//   DeepSpeed           deepspeed/runtime/pipe/engine.py (asserts ZeRO below 2), pipe/schedule.py
//   FSDP                LLM Foundry: PyTorch's FSDP over all ranks; no pipeline
//   torchtitan          torch.distributed.pipelining; fully_shard is ZeRO-2 or 3
//   nanotron            config/parallelism_config.py, parallel/pipeline_parallel/engine.py
//   rehearse            runtime/train/runnable.cpp

#include "planner/framework_notes.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/choice_tables.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

class NoteTaker {
 public:
  explicit NoteTaker(const Plan& plan) : plan_(plan) {}

  std::vector<std::string> run() {
    switch (plan_.framework) {
      case Framework::Generic:
        return {};
      case Framework::Megatron:
        megatron();
        break;
      case Framework::MegatronDeepspeed:
        megatron_deepspeed();
        break;
      case Framework::LlmFoundryFsdp:
        fsdp();
        break;
      case Framework::Torchtitan:
        torchtitan();
        break;
      case Framework::Nanotron:
        nanotron();
        break;
      case Framework::Rehearse:
        rehearse();
        return std::move(notes_);
    }
    of_all();
    return std::move(notes_);
  }

 private:
  void note(bool asked, const std::string& what, const char* answer) {
    if (!asked) return;
    notes_.push_back(fmt::format("{} does not do {}: {}; it is simulated as if it did",
                                 name_of(framework_names(), plan_.framework), what, answer));
  }
  bool has_stages() const { return plan_.pp > 1; }
  bool schedules_by(std::initializer_list<ScheduleKind> known) const {
    return std::find(known.begin(), known.end(), plan_.schedule) != known.end();
  }
  void note_schedule(std::initializer_list<ScheduleKind> known, const char* answer) {
    note(has_stages() && plan_.actions.empty() && !schedules_by(known),
         fmt::format("the schedule {}", name_of(schedule_names(), plan_.schedule)), answer);
  }

  void megatron() {
    note(plan_.zero >= 2 && has_stages(), fmt::format("ZeRO-{} with pipeline stages", plan_.zero),
         "its use-torch-fsdp2 refuses a pipeline, and the distributed optimizer is ZeRO-1");
    note(plan_.zero >= 2 && plan_.ep > 1, fmt::format("ZeRO-{} with expert ranks", plan_.zero),
         "its use-torch-fsdp2 refuses them");
    note_schedule({ScheduleKind::OneFOneB}, "it has 1F1B, interleaved or not");
  }
  void megatron_deepspeed() {
    note(plan_.zero >= 2 && has_stages(), fmt::format("ZeRO-{} with pipeline stages", plan_.zero),
         "DeepSpeed's pipeline engine asserts ZeRO-1 at most");
    note_schedule({ScheduleKind::OneFOneB}, "DeepSpeed's pipeline engine has 1F1B");
    note(has_stages() && plan_.virtual_stages > 1, "interleaved chunks",
         "DeepSpeed's pipeline engine gives a stage one");
  }
  void fsdp() {
    note(has_stages(), "pipeline stages", "it shards data ranks alone");
    note(plan_.cp > 1, "context ranks", "it shards data ranks alone");
    note(plan_.zero == 1, "ZeRO-1", "FSDP shards gradients too, or nothing");
  }
  void torchtitan() {
    note(plan_.zero == 1, "ZeRO-1", "fully_shard shards gradients too, and DDP nothing");
    note_schedule(
        {ScheduleKind::OneFOneB, ScheduleKind::Gpipe, ScheduleKind::ZbV, ScheduleKind::DualPipe},
        "torch.distributed.pipelining has 1F1B, GPipe, interleaved and vee-shaped ones");
    note(plan_.schedule == ScheduleKind::DualPipe && has_stages(), "both ways with two copies",
         "torch.distributed.pipelining has the vee of it, DualPipeV");
  }
  void nanotron() {
    note(plan_.zero >= 2, fmt::format("ZeRO-{}", plan_.zero), "it has ZeRO-0 and 1");
    note_schedule({ScheduleKind::OneFOneB, ScheduleKind::Gpipe}, "it has 1F1B and GPipe");
    note(has_stages() && plan_.virtual_stages > 1, "interleaved chunks",
         "its engines give a stage one");
  }

  void rehearse() {
    const char* refuses = "it refuses such a plan (docs/training.md)";
    note(plan_.zero >= 2, fmt::format("ZeRO-{}", plan_.zero), "it has ZeRO-0 and 1");
    note(plan_.ep > 1, "expert ranks", refuses);
    note(plan_.precision == Precision::Fp16 || plan_.precision == Precision::Fp8,
         name_of(precision_names(), plan_.precision), "it computes in fp32 and bf16");
    note(plan_.attention == AttentionKernel::Plain, "plain attention", refuses);
    note(plan_.dropout > 0, "dropout", refuses);
    note(plan_.gradient_precision != Precision::Fp32 || plan_.moment_precision != Precision::Fp32,
         "gradients or moments in fewer bits", refuses);
    note(plan_.recompute == Recompute::Operators || !plan_.recompute_operators.empty(),
         "recomputation by operator", "it repeats whole layers");
    note(plan_.tensor_rows > 1, "tensor parallelism by blocks", refuses);
    note(plan_.offload != Offload{}, "offload", refuses);
    note(plan_.store != ActivationStore{}, "activations stored in fewer bits", refuses);
    note(plan_.updates != Updates{}, "updates other than synchronous", refuses);
    note(plan_.rebalance_every > 0, "shares that change during the run", refuses);
  }

  void of_all() {
    note(plan_.tensor_rows > 1, "tensor parallelism by blocks",
         "it cuts weights by whole columns and rows");
    note(plan_.updates.aggregation == Aggregation::ParameterServer, "parameter servers",
         "its replicas reduce gradients among themselves");
    note(!plan_.replica_micro_batches.empty() || plan_.rebalance_every > 0,
         "uneven shares of the batch", "it gives replicas equal numbers of micro-batches");
    const bool stores = plan_.store.attention_result != StoredAs::Computed ||
                        (plan_.store.ffn_activation != StoredAs::Computed &&
                         plan_.framework != Framework::Megatron);
    note(stores, "activations stored in fewer bits", "it keeps them as the backward reads them");
  }

  const Plan& plan_;
  std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> framework_notes(const Plan& plan) { return NoteTaker(plan).run(); }

}  // namespace rehearse
