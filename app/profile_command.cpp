#include "app/commands.h"
#include "app/device_program.h"

namespace rehearse {

ExitCode profile_command(const ProfileOptions& options) {
  std::vector<std::string> arguments{"profile"};
  const auto pass = [&](const char* name, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {name, value});
  };
  pass("--device", options.device);
  pass("--budget", options.budget);
  pass("--threads", options.threads > 0 ? std::to_string(options.threads) : "");
  pass("--ranks", options.ranks > 1 ? std::to_string(options.ranks) : "");
  pass("--plan", options.plan);
  pass("--output", options.output);
  if (options.force) arguments.push_back("--force");
  return run_device_program(arguments);
}

}  // namespace rehearse
