#include "app/commands.h"
#include "app/device_program.h"

namespace rehearse {

ExitCode data_command(const DataOptions& options) {
  std::vector<std::string> arguments{"data", options.action, options.text, "-o", options.output};
  if (options.force) arguments.push_back("--force");
  return run_device_program(arguments);
}

}  // namespace rehearse
