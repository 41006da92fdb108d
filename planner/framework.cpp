#include "planner/framework.h"

#include <utility>

namespace rehearse {
namespace {

class FrameworkCostModel final : public CostModel {
 public:
  FrameworkCostModel(std::unique_ptr<CostModel> costs, const FrameworkCosts& framework)
      : costs_(std::move(costs)), framework_(framework) {}

  Cost cost(const Operator& op) const override {
    Cost cost = costs_->cost(op);
    cost.seconds /= framework_.compute_rate;
    return cost;
  }
  double launch_s() const override { return framework_.launch_s; }
  std::string description() const override { return costs_->description(); }

 private:
  std::unique_ptr<CostModel> costs_;
  FrameworkCosts framework_;
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
    case Framework::Generic:
    case Framework::Megatron:
    case Framework::MegatronDeepspeed:
    case Framework::LlmFoundryFsdp:
    case Framework::Torchtitan:
    case Framework::Nanotron:
      break;
  }
  return costs;
}

std::unique_ptr<CostModel> with_framework(std::unique_ptr<CostModel> costs,
                                          const FrameworkCosts& framework) {
  return std::make_unique<FrameworkCostModel>(std::move(costs), framework);
}

Plan framework_plan(Framework framework, Plan plan, const Model&, const GpuSpec& gpu) {
  const bool before_flash = gpu.compute_capability < 90;
  const bool megatron =
      framework == Framework::Megatron || framework == Framework::MegatronDeepspeed;
  if (megatron && before_flash) {
    plan.attention = AttentionKernel::Plain;
    plan.dropout = 0.1;
  }
  return plan;
}

}  // namespace rehearse
