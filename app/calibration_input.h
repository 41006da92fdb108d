#pragma once
#include <optional>
#include <string>

#include "planner/calibration.h"

namespace rehearse {

/// Reads a calibration/1 file; problems go to stderr, and nothing comes back. An empty path: no
/// calibration, all factors 1.
std::optional<Calibration> read_calibration_file(const std::string& path);

}  // namespace rehearse
