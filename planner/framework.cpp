// What frameworks add to a step, each figure from what was seen of it:
//
// Host time an operator. A layer of these models is 26 to 48 operators of this program; a framework
// launches several kernels for each and runs its Python between them.
//   Megatron-DeepSpeed  layers of 1,024 hidden with micro-batches of one take 3.35 ms whatever
//                       their number and the data ranks (vTrain's published single-node runs on
//                       A100, 48 operators a layer), and 0.2 ms more with 6 collectives.
//   nanotron            layers take 4.4 to 4.6 ms with micro-batches of one at every width and
//                       every tensor group of 4 or 8 (Hugging Face's benchmark runs on H100: 26
//                       operators and 10 collectives a layer).
//   others              the cost model's own figure, 5 to 10 µs for eager PyTorch: their published
//                       runs are bound by their devices.
//
// Memory.
//   nanotron            its figure does not change with the micro-batch, and is 20 bytes a
//                       parameter with several data ranks, 18 with one, 10 + 14/dp with ZeRO-1: the
//                       states and bf16 buckets of 2 bytes. What it reserves is that and 1.6 times
//                       the saved tensors.
//   Megatron-DeepSpeed  BLOOM's figures are of the device; a tenth is lost between blocks.

#include "planner/framework.h"

#include <utility>

#include "kernels/layer.h"

namespace rehearse {
namespace {

class LaunchedCostModel final : public CostModel {
 public:
  LaunchedCostModel(std::unique_ptr<CostModel> costs, double launch_s)
      : costs_(std::move(costs)), launch_s_(launch_s) {}

  Cost cost(const Operator& op) const override { return costs_->cost(op); }
  double launch_s() const override { return launch_s_; }
  std::string description() const override { return costs_->description(); }

 private:
  std::unique_ptr<CostModel> costs_;
  double launch_s_;
};

}  // namespace

const Names<Framework>& framework_names() {
  static const Names<Framework> names{{"generic", Framework::Generic},
                                      {"megatron", Framework::Megatron},
                                      {"megatron-deepspeed", Framework::MegatronDeepspeed},
                                      {"llm-foundry-fsdp", Framework::LlmFoundryFsdp},
                                      {"torchtitan", Framework::Torchtitan},
                                      {"nanotron", Framework::Nanotron}};
  return names;
}

FrameworkCosts framework_costs(Framework framework) {
  FrameworkCosts costs;
  switch (framework) {
    case Framework::MegatronDeepspeed:
      costs.launch_s = 70e-6;
      costs.collective_host_s = 33e-6;
      costs.fragmentation = 0.1;
      costs.memory_figure = MemoryFigure::Device;
      break;
    case Framework::Nanotron:
      costs.launch_s = 110e-6;
      costs.collective_host_s = 160e-6;
      costs.activation_overhead = 0.6;
      costs.reduction_buffer_bytes = 2;
      costs.memory_figure = MemoryFigure::Standing;
      break;
    case Framework::Torchtitan:  // its log line prints what the allocator reserved
      costs.memory_figure = MemoryFigure::Reserved;
      break;
    case Framework::Generic:
    case Framework::Megatron:
    case Framework::LlmFoundryFsdp:
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

std::unique_ptr<CostModel> with_launch(std::unique_ptr<CostModel> costs, double launch_s) {
  if (launch_s <= 0) return costs;
  return std::make_unique<LaunchedCostModel>(std::move(costs), launch_s);
}

Plan framework_plan(Framework framework, Plan plan, const Model&, const GpuSpec& gpu) {
  // Published Megatron runs before Hopper are from the time before flash attention, when scripts
  // had a dropout of 0.1 (Megatron-LM's examples of 2021).
  const bool megatron =
      framework == Framework::Megatron || framework == Framework::MegatronDeepspeed;
  if (megatron && gpu.compute_capability < 90) {
    plan.attention = AttentionKernel::Plain;
    plan.dropout = 0.1;
  }
  // Megatron-LM reduces and gathers beside its weight gradients since the code of Korthikanti et
  // al. (2022), which brought sequence parallelism; Megatron-DeepSpeed forked before. nanotron and
  // torchtitan have it as an option that is off by default.
  const bool before = gpu.compute_capability < 90 && !plan.sequence_parallel;
  if (framework == Framework::MegatronDeepspeed || framework == Framework::Nanotron ||
      framework == Framework::Torchtitan || (framework == Framework::Megatron && before))
    plan.overlap.tensor = false;
  return plan;
}

}  // namespace rehearse
