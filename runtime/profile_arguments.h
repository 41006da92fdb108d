#pragma once
#include <optional>
#include <string>

namespace rehearse {

/// Seconds of a "--budget"; ArgumentError where it is none, or less than one.
double budget_of(const std::string& text);

/// 0 of "cuda", N of "cuda:N"; nothing where the text names no GPU.
std::optional<int> gpu_index_of(const std::string& text);

}  // namespace rehearse
