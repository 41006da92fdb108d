#pragma once
#include <string>
#include <vector>

#include "planner/framework.h"

namespace rehearse {

/// Fills the fields that the plan's file leaves open with what its framework does where nobody
/// asks for anything else. A field that the file states is never touched. Sentences say what was
/// filled: "dropout = 0.1, because …". Nothing happens to a generic plan.
/// (`framework_plan` is the other thing: how published runs of former years were made.)
std::vector<std::string> fill_framework_defaults(Plan& plan, const GpuSpec& gpu);

/// What the framework adds to a step and its memory beside kernels and tensors, as sentences.
std::vector<std::string> framework_cost_sentences(Framework framework, const FrameworkCosts& costs);

}  // namespace rehearse
