#pragma once
#include <atomic>
#include <functional>
#include <string>

#include "kernels/profile.h"
#include "kernels/profiler/profile_device.h"
#include "plan/plan_file.h"

namespace rehearse {

struct PlanMeasuring {
  double budget_s = 10;
  /// Makes the device that a rank computes on; called in each process of its own.
  std::function<ProfiledDevice()> device;
  const std::atomic<bool>* interrupt = nullptr;
  std::function<void(double elapsed_s)> progress;  ///< after each step
};

/// A profile of the operators that a plan needs, and of no others: its first and its last stage
/// train for some steps, by themselves (runtime/train/solo_world.h), while as many processes do as
/// the other ranks will. Operators are timed at their shapes, in their order and with what the one
/// before left in the caches. Prices are medians over the steps of an operator's mean in each.
/// REQUIRES: the plan is runnable.
Profile measure_plan(const PlanFile& file, const PlanMeasuring& measuring);

}  // namespace rehearse
