#include "app/device_program.h"

#include <filesystem>
#include <stdexcept>

#include "runtime/child_process.h"

namespace rehearse {

ExitCode run_device_program(const std::vector<std::string>& arguments) {
  const std::string program = sibling_program("rehearse-device");
  if (!std::filesystem::exists(program))
    throw std::runtime_error("this needs rehearse-device, which is not at " + program);
  std::vector<std::string> command{program};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const int code = run_attached(command);
  // Codes of the two programs are the same; anything else is a crash or a signal.
  switch (code) {
    case static_cast<int>(ExitCode::Done):
    case static_cast<int>(ExitCode::Environment):
    case static_cast<int>(ExitCode::BadInput):
    case static_cast<int>(ExitCode::Infeasible):
    case static_cast<int>(ExitCode::Tolerance):
    case static_cast<int>(ExitCode::Interrupted):
      return static_cast<ExitCode>(code);
    default:
      throw std::runtime_error("rehearse-device ended with exit code " + std::to_string(code));
  }
}

}  // namespace rehearse
