#pragma once
#include <string>
#include <vector>

#include "app/exit_code.h"

namespace rehearse {

/// Runs `rehearse-device` with this program's own standard streams and passes its exit code on;
/// what it prints is the command's result. Throws std::runtime_error where it is not there.
ExitCode run_device_program(const std::vector<std::string>& arguments);

}  // namespace rehearse
