#include "app/device_program.h"

#include <filesystem>
#include <stdexcept>

#include "runtime/child_process.h"

namespace rehearse {

namespace {

/// What the loader ends a program with that lacks a library.
constexpr int kLoaderFailed = 127;

/// The library that the loader does not find; it has said so before the program itself began.
std::string missing_library(const std::string& program) {
  const std::string said = run_child({program, "--version"}).err;
  const std::string before = "error while loading shared libraries: ";
  const std::size_t at = said.find(before);
  if (at == std::string::npos) return "a library";
  const std::size_t begin = at + before.size();
  return said.substr(begin, said.find(':', begin) - begin);
}

}  // namespace

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
    case kLoaderFailed:
      throw std::runtime_error("rehearse-device cannot start without " + missing_library(program) +
                               ", which is not on this machine; simulations work without it");
    default:
      throw std::runtime_error("rehearse-device ended with exit code " + std::to_string(code));
  }
}

}  // namespace rehearse
