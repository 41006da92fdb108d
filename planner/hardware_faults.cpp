#include "planner/hardware_faults.h"

#include "plan/noun_tables.h"
#include "strategies/host_rates.h"

namespace rehearse {
namespace {

/// A GPU without the plan's precision cannot run it; which others it has makes the hint.
void add_precision_fault(const Plan& plan, const ClusterSpec& cluster,
                         std::vector<PlanFault>& faults) {
  for (const NodeGroup& group : cluster.groups) {
    const GpuSpec& gpu = group.node.gpu;
    constexpr int kBlackwell = 100;
    const bool scales_in_hardware = plan.precision == Precision::Fp8 &&
                                    plan.fp8.scaling == Fp8Scaling::Mx &&
                                    gpu.compute_capability > 0 && gpu.fp8_flops > 0;
    if (scales_in_hardware && gpu.compute_capability < kBlackwell) {
      faults.push_back(
          {.pointer = "/fp8/scaling",
           .message = gpu.name + " has no tensor cores that scale blocks of 32 (MXFP8)",
           .hint = "\"scaling\": \"block\" or \"delayed\""});
      return;
    }
    if (peak_flops_of(gpu, plan.precision) > 0) continue;
    const Precision other = gpu.bf16_flops > 0 ? Precision::Bf16 : Precision::Fp16;
    faults.push_back({.pointer = "/precision",
                      .message = gpu.name + " has no " +
                                 name_of(precision_names(), plan.precision) + " tensor cores",
                      .hint = "\"precision\": \"" + name_of(precision_names(), other) + "\""});
    return;
  }
}

/// What is offloaded needs a way to the host.
void add_host_link_fault(const Plan& plan, const ClusterSpec& cluster,
                         std::vector<PlanFault>& faults) {
  if (plan.offload == Offload()) return;
  for (const NodeGroup& group : cluster.groups)
    if (host_rates(group.node).copy_bytes_per_s <= 0)
      return faults.push_back({.pointer = "/offload",
                               .message = "no PCIe bandwidth is stated of " + group.node.gpu.name,
                               .hint = "\"pcie_bandwidth\" of the GPU"});
}

}  // namespace

double peak_flops_of(const GpuSpec& gpu, Precision precision) {
  switch (precision) {
    case Precision::Fp32:
      return gpu.fp32_flops;
    case Precision::Bf16:
      return gpu.bf16_flops;
    case Precision::Fp16:
      return gpu.fp16_flops;
    case Precision::Fp8:
      return gpu.fp8_flops;
  }
  return 0;
}

void add_hardware_faults(const Plan& plan, const ClusterSpec& cluster,
                         std::vector<PlanFault>& faults) {
  add_precision_fault(plan, cluster, faults);
  add_host_link_fault(plan, cluster, faults);
}

}  // namespace rehearse
