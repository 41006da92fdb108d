#include <algorithm>

#include "runtime/child_process.h"
#include "runtime/shard_run.h"

namespace rehearse {
namespace {

// Options of `rehearse run` that would have every share write the same file, or that this
// program sets itself.
const std::vector<std::string> kRefused{"--csv", "--trace", "--plan-out", "--output",
                                        "-o",    "--shard", "--verbose",  "-v"};
const std::vector<std::string> kOwn{"--program", "--json", "--force"};
// Options of `rehearse run` that take a value and may be passed on.
const std::vector<std::string> kWithValue{"--fidelity", "--collectives", "--jobs", "-j", "--color"};

bool among(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

ShardRun parse_shard_run(Arguments arguments) {
  ShardRun run{.program = sibling_program("rehearse"), .passed = {}, .json = "-"};
  bool scenario = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto equals = arguments[i].starts_with("--") ? arguments[i].find('=') : std::string::npos;
    const std::string name = arguments[i].substr(0, equals);
    const auto value = [&]() -> std::string {
      if (equals != std::string::npos) return arguments[i].substr(equals + 1);
      if (i + 1 == arguments.size()) throw ArgumentError(name + " needs a value");
      return arguments[++i];
    };
    if (among(kRefused, name))
      throw ArgumentError(name + " cannot be spread over ranks",
                          "run rehearse itself on the variant you want it for");
    if (name == "--program") {
      run.program = value();
    } else if (name == "--json") {
      run.json = value();
    } else if (name == "--force" || name == "-f") {
      run.force = true;
    } else {
      run.passed.push_back(arguments[i]);
      if (among(kWithValue, name) && equals == std::string::npos) run.passed.push_back(value());
      scenario = scenario || !name.starts_with("-");
    }
  }
  if (!scenario) {
    const std::string typed = run.passed.empty() ? "" : run.passed.front();
    throw ArgumentError("run needs a scenario file", typed.empty() ? "" : meant(typed, kOwn));
  }
  return run;
}

std::vector<std::string> shard_command(const ShardRun& run, int rank, int size) {
  std::vector<std::string> command{run.program, "run"};
  command.insert(command.end(), run.passed.begin(), run.passed.end());
  const std::string share = std::to_string(rank + 1) + "/" + std::to_string(size);
  command.insert(command.end(), {"--quiet", "--json", "-", "--shard", share});
  return command;
}

}  // namespace rehearse
