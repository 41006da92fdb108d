#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/profile.h"

namespace rehearse {

/// The software whose kernels the shipped profiles are of: cuBLAS, FlashAttention or cuDNN, fused
/// elementwise kernels.
inline constexpr const char* kDefaultStack = "megatron";

/// "<gpu>.<stack>" of every profile inside the program, in order.
std::vector<std::string> shipped_profile_names();
/// The text of one, as kernels/profiles has it. REQUIRES: its name is among the above.
std::string_view shipped_profile_text(const std::string& name);
/// Read at first use and kept; nullptr where there is none.
const Profile* shipped_profile(const std::string& gpu, const std::string& stack);

/// The profile that prices a GPU: its own, else that of the GPU of the same architecture whose
/// data sheet is nearest, else nullptr. Another architecture's constants predict no better than
/// the data sheet (roofline_cost_model).
const Profile* nearest_profile(const DeviceFacts& device, const std::string& stack);

/// By the nearest profile where there is one, else by the roofline.
std::unique_ptr<CostModel> device_cost_model(const DeviceFacts& device,
                                             const std::string& stack = kDefaultStack,
                                             ClockRegime clocks = ClockRegime::Sustained);

}  // namespace rehearse
