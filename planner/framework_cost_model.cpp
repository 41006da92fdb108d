// Prices of operators as a framework runs them: the profile's, changed by the framework's habits.

#include <utility>

#include "planner/framework.h"

namespace rehearse {
namespace {

class FrameworkCostModel final : public CostModel {
 public:
  FrameworkCostModel(std::unique_ptr<CostModel> costs, const FrameworkCosts& framework,
                     double launch_s)
      : costs_(std::move(costs)),
        kernels_(framework.kernels),
        computing_(framework.computing),
        launch_s_(framework.host * (launch_s > 0 ? launch_s : costs_->launch_s())),
        blocking_(framework.blocking_launches) {}

  Cost cost(const Operator& op) const override {
    Cost cost = habitual(op);
    cost.seconds *= computing_;
    // A host that waits for each operator issues none ahead: its time adds to every one's.
    if (blocking_) cost.seconds += launch_s_;
    return cost;
  }
  double launch_s() const override { return blocking_ ? 0 : launch_s_; }
  std::string description() const override { return costs_->description(); }
  const std::vector<CollectiveCurve>& collectives() const override { return costs_->collectives(); }

 private:
  Cost habitual(const Operator& op) const {
    switch (op.family) {
      case OperatorFamily::Gemm:
        return product(op);
      case OperatorFamily::Attention: {
        Cost cost = costs_->cost(op);
        cost.seconds *=
            op.pass == Pass::Forward ? kernels_.attention_forward : kernels_.attention_backward;
        return cost;
      }
      case OperatorFamily::Memory: {
        Operator moved = op;
        moved.bytes *= traffic(op);
        return costs_->cost(moved);
      }
    }
    return costs_->cost(op);
  }

  Cost product(const Operator& op) const {
    const bool apart = kernels_.gradient_pass_bytes > 0 && op.pass == Pass::WeightGradient;
    if (!apart || op.batch > 1) return costs_->cost(op);
    Operator plain = gemm(op.name, op.pass, op.precision, op.m, op.n, op.k);
    Cost cost = costs_->cost(plain);
    const double weights = static_cast<double>(op.m) * static_cast<double>(op.n);
    cost.seconds +=
        costs_
            ->cost(memory_operator(OperatorName::GradientAccumulate, Pass::WeightGradient,
                                   kernels_.gradient_pass_bytes * weights))
            .seconds;
    return cost;
  }

  /// Bytes an operator moves, relative to the least.
  double traffic(const Operator& op) const {
    switch (op.name) {
      case OperatorName::Rope:
        return kernels_.rope;
      case OperatorName::FfnActivation:
        return op.pass == Pass::Forward ? kernels_.activation_forward
                                        : kernels_.activation_backward;
      case OperatorName::CrossEntropy:
        return kernels_.cross_entropy;
      case OperatorName::Cast:
        return op.pass == Pass::Forward         ? kernels_.cast_forward
               : op.pass == Pass::InputGradient ? kernels_.cast_backward
                                                : 1;
      default:
        return 1;
    }
  }

  std::unique_ptr<CostModel> costs_;
  KernelHabits kernels_;
  double computing_, launch_s_;
  bool blocking_;
};

}  // namespace

std::unique_ptr<CostModel> framework_cost_model(std::unique_ptr<CostModel> costs,
                                                const FrameworkCosts& framework, double launch_s) {
  return std::make_unique<FrameworkCostModel>(std::move(costs), framework, launch_s);
}

}  // namespace rehearse
