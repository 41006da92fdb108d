#include "strategies/check_experts.h"

#include <fmt/format.h>

#include <numeric>

#include "plan/mixture.h"
#include "strategies/expert_groups.h"

namespace rehearse {
namespace {

class ExpertChecker {
 public:
  ExpertChecker(const Plan& plan, const Model& model) : plan_(plan), model_(model) {}

  std::vector<PlanFault> run() {
    if (is_latent(model_))
      check_latent();
    else
      check_named_parts();
    if (model_.experts.count == 0)
      check_dense();
    else if (check_shares())
      check_groups();
    return std::move(faults_);
  }

 private:
  void add(const char* pointer, std::string message, std::string hint = {}) {
    faults_.push_back({pointer, std::move(message), std::move(hint)});
  }

  void check_latent() {
    if (plan_.attention == AttentionKernel::Plain)
      add("/attention", "latent attention is computed by flash kernels alone",
          "\"attention\": \"flash\"");
    if (plan_.cp > 1)
      add("/cp", "latent attention over context ranks is not simulated yet", "\"cp\": 1");
  }

  void check_named_parts() {
    for (const std::string& part : plan_.recompute_operators)
      if (part == "latent-up")
        add("/recompute_operators",
            fmt::format("{} has no latents to make keys and values of again", model_.name));
  }

  void check_dense() {
    if (plan_.ep > 1)
      add("/ep", fmt::format("{} is a dense model and has no experts", model_.name), "\"ep\": 1");
    if (plan_.experts != ExpertPlan())
      add("/experts", fmt::format("{} is a dense model and has no experts", model_.name));
    if (plan_.overlap.experts)
      add("/overlap/experts", fmt::format("{} is a dense model and has no experts", model_.name));
  }

  void must_divide(const char* pointer, int ranks, const char* what, int size) {
    if (size % ranks != 0)
      add(pointer, fmt::format("{} ranks cannot share the {} {} of {} evenly", ranks, size, what,
                               model_.name));
  }

  /// What ranks hold of the experts.
  bool check_shares() {
    const std::size_t before = faults_.size();
    const int shared = expert_tensor_ranks(plan_);
    must_divide("/ep", plan_.ep, "experts", model_.experts.count);
    if (plan_.tp > 1 && !plan_.sequence_parallel)
      add("/sequence_parallel",
          "without sequence parallelism every tensor rank would send the same tokens to experts",
          "\"sequence_parallel\": true, as Megatron-LM asks for");
    if (shared != 1 && shared != plan_.tp)
      add("/experts/tp",
          fmt::format("an expert lies on one tensor rank or on all {}, not on {}", plan_.tp,
                      shared),
          fmt::format("1 or {}", plan_.tp));
    else
      must_divide("/experts/tp", shared, "columns of an expert", expert_width(model_));
    must_divide("/tp", plan_.tp, "columns of shared experts", model_.experts.shared_ffn);
    const ExpertPlan& experts = plan_.experts;
    if (!(experts.capacity >= 0))
      add("/experts/capacity", "an expert cannot take less than no tokens");
    if (experts.pad && experts.capacity == 0)
      add("/experts/pad", "buffers are padded up to a capacity, and there is none",
          "\"capacity\": 1.25");
    if (experts.node_limit < 0) add("/experts/node_limit", "a limit of nodes cannot be negative");
    return faults_.size() == before;
  }

  /// Which ranks hold them.
  void check_groups() {
    const int ranks = plan_.ep * expert_tensor_ranks(plan_);
    if (ranks % plan_.tp != 0)
      return add(
          "/ep",
          fmt::format("experts on {} ranks do not fill tensor groups of {}", ranks, plan_.tp),
          fmt::format("an ep that is a multiple of {}, or experts split by all tensor ranks",
                      plan_.tp));
    const int size = ranks_with_all_experts(plan_);
    if (plan_.dp * plan_.cp % size != 0)
      add("/ep",
          plan_.cp == 1
              ? fmt::format("groups of {} data ranks that hold all experts do not divide {}", size,
                            plan_.dp)
              : fmt::format("groups of {} data and context ranks that hold all experts do not "
                            "divide {}·{}",
                            size, plan_.dp, plan_.cp),
          "an ep that divides the data ranks");
    else if (size % plan_.cp != 0 && plan_.cp % size != 0)
      add("/ep",
          fmt::format(
              "groups of {} ranks that hold all experts begin and end inside the {} context "
              "ranks of a replica",
              size, plan_.cp),
          "an ep that is a multiple of cp, or divides it");
    if (plan_.ep == 1) return;
    if (plan_.shard > 0 && plan_.shard * plan_.cp % size != 0)
      add("/shard",
          fmt::format("{} ranks hold all experts of a layer together, and {} ranks that share one "
                      "set of shards are not a whole number of such groups",
                      size, plan_.shard * plan_.cp),
          fmt::format("a shard that is a multiple of {}", size / std::gcd(size, plan_.cp)));
    if (plan_.overlap.experts && plan_.schedule != ScheduleKind::DualPipe)
      add("/overlap/experts",
          "dispatch and combine go beside the work of another micro-batch only where a schedule "
          "joins two",
          "\"schedule\": \"dualpipe\"");
  }

  const Plan& plan_;
  const Model& model_;
  std::vector<PlanFault> faults_;
};

}  // namespace

std::vector<PlanFault> expert_faults(const Plan& plan, const Model& model) {
  return ExpertChecker(plan, model).run();
}

}  // namespace rehearse
