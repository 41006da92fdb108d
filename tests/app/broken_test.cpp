#include <algorithm>
#include <filesystem>
#include <vector>

#include "app/scenario.h"
#include "tests/golden.h"
#include "tests/places.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> broken_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(source_directory() + "/tests/app/broken"))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST_CASE("Each broken scenario file is answered with every problem, located and explained") {
  const std::vector<fs::path> files = broken_files();
  REQUIRE(files.size() >= 10);
  for (const fs::path& path : files) {
    const std::string text = read_whole_file(path.string());
    const std::string name = "broken/" + path.filename().string();
    INFO(name);
    Problems problems;
    CHECK_FALSE(read_scenario(text, name, problems).has_value());
    CHECK(problems.count() > 0);
    for (const Problem& problem : problems.all()) {
      INFO(problem.message);
      CHECK(problem.file == name);
      CHECK(problem.line >= 1);
      CHECK(problem.line <= 1 + std::count(text.begin(), text.end(), '\n'));
      CHECK(problem.column >= 1);
    }
    fs::path golden = path;
    check_golden(golden.replace_extension(".txt").string(), problems.text());
  }
}

}  // namespace
}  // namespace rehearse
