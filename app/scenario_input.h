#pragma once
#include <optional>
#include <string>
#include <vector>

#include "app/scenario.h"

namespace rehearse {

/// Reads scenario files ("-": stdin); the problems of all of them are printed on stderr, and
/// then the result is empty. Throws where a file cannot be read.
std::optional<std::vector<ScenarioFile>> read_scenarios(const std::vector<std::string>& paths);

}  // namespace rehearse
