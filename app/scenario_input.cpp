#include "app/scenario_input.h"

#include "app/output.h"

namespace rehearse {

std::optional<std::vector<ScenarioFile>> read_scenarios(const std::vector<std::string>& paths) {
  Problems problems;
  std::vector<ScenarioFile> files;
  for (const std::string& path : paths) {
    const std::string name = path == "-" ? "<stdin>" : path;
    if (auto file = read_scenario(read_whole(path), name, problems))
      files.push_back(std::move(*file));
  }
  if (!problems.empty()) {
    report_problems(problems);
    return std::nullopt;
  }
  return files;
}

}  // namespace rehearse
