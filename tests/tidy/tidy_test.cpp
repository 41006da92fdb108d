// A test that reads the code. The first half checks the rules on made-up files, so that a rule
// that finds nothing is one that looked.
#include <map>
#include <regex>

#include "tests/catch.h"
#include "tests/places.h"
#include "tests/tidy/source_tree.h"

using namespace rehearse::tidy;

namespace {

SourceFile made_up(const std::string& path, const std::string& text) {
  SourceFile file{.path = path, .text = text, .lines = {}};
  std::string line;
  for (const char c : text) {
    if (c != '\n') {
      line += c;
      continue;
    }
    file.lines.push_back(line);
    line.clear();
  }
  return file;
}

const std::vector<SourceFile>& project() {
  static const std::vector<SourceFile> kFiles = source_files(rehearse::source_directory());
  return kFiles;
}

std::string joined(const Violations& violations) {
  std::string text;
  for (const auto& violation : violations) text += "\n" + violation;
  return text;
}

/// What the rule finds in the whole project.
std::string everywhere(Violations (*rule)(const SourceFile&)) {
  Violations all;
  for (const auto& file : project()) {
    const Violations found = rule(file);
    all.insert(all.end(), found.begin(), found.end());
  }
  return joined(all);
}

bool mentioned(const std::string& name) {
  for (const auto& file : project()) {
    if (!file.path.starts_with("scenarios/") && file.text.find(name) != std::string::npos)
      return true;
  }
  return false;
}

}  // namespace

TEST_CASE("the layout rule sees long lines, tabs, blanks and long files") {
  CHECK(layout_violations(made_up("plan/a.h", std::string(100, 'x') + "\n")).empty());
  CHECK(layout_violations(made_up("plan/a.h", std::string(101, 'x') + "\n")) ==
        Violations{"plan/a.h:1: 101 columns"});
  CHECK(layout_violations(made_up("plan/a.h", "// " + std::string(95, 'x') + "µ≤\n")).empty());
  CHECK(layout_violations(made_up("plan/a.cpp", "int a;\n\tint b; \n")) ==
        Violations{"plan/a.cpp:2: a tab", "plan/a.cpp:2: blanks at the end"});
  std::string many;
  for (int i = 0; i < 501; ++i) many += "\n";
  CHECK(layout_violations(made_up("plan/a.cpp", many)) == Violations{"plan/a.cpp: 501 lines"});
  CHECK(layout_violations(made_up("docs/a.md", std::string(300, 'x') + "\n")).empty());
}

TEST_CASE("the word rule sees unfinished work and paths of one machine") {
  CHECK(word_violations(made_up("plan/a.h",
                                "// TO"
                                "DO: later\n"))
            .size() == 1);
  CHECK(word_violations(made_up("docs/a.md",
                                "see /ho"
                                "me/someone/x\n"))
            .size() == 1);
  CHECK(word_violations(made_up("docs/a.md", "build/release and /usr/local/cuda\n")).empty());
  CHECK(word_violations(made_up("docs/a.md",
                                "a network/wo"
                                "rk/x ratio\n"))
            .empty());
}

TEST_CASE("the library rule keeps each library in its room") {
  const auto of = [](const std::string& path, const std::string& header) {
    return library_violations(made_up(path, "#include <" + header + ">\n"));
  };
  CHECK(of("sim/a.cpp", "simgrid/s4u.hpp").empty());
  CHECK(of("planner/a.cpp", "simgrid/s4u.hpp").size() == 1);
  CHECK(of("topologies/a.cpp", "boost/graph/adjacency_list.hpp").empty());
  CHECK(of("topologies/a.h", "boost/graph/adjacency_list.hpp").size() == 1);
  CHECK(of("app/a.cpp", "boost/graph/adjacency_list.hpp").size() == 1);
  CHECK(of("runtime/a.cpp", "mpi.h").empty());
  CHECK(of("sim/a.cpp", "mpi.h").size() == 1);
  CHECK(of("kernels/a.cu", "cuda_runtime.h").empty());
  CHECK(of("strategies/a.cpp", "cuda_runtime.h").size() == 1);
  CHECK(of("runtime/a.cpp", "nccl.h").empty());
  CHECK(of("plan/a.cpp", "nlohmann/json.hpp").empty());
  CHECK(of("plan/a.h", "nlohmann/json.hpp").size() == 1);
  CHECK(of("plan/a.h", "nlohmann/json_fwd.hpp").empty());
  CHECK(of("app/a.h", "CLI/CLI.hpp").size() == 1);
}

TEST_CASE("the layer rule lets folders include only from those below") {
  const auto of = [](const std::string& path, const std::string& header) {
    return layer_violations(made_up(path, "#include \"" + header + "\"\n"));
  };
  CHECK(of("sim/a.cpp", "strategies/step_graph.h").empty());
  CHECK(of("plan/a.cpp", "plan/model.h").empty());
  CHECK(of("plan/a.cpp", "kernels/operator.h").size() == 1);
  CHECK(of("runtime/a.cpp", "sim/simulate.h").size() == 1);
  CHECK(of("kernels/a.h", "topologies/hardware.h").size() == 1);
  CHECK(of("app/a.cpp", "runtime/doctor.h").size() == 1);
  CHECK(of("plan/a.cpp", "tests/catch.h").size() == 1);
}

TEST_CASE("the project is there to be read") {
  const auto has = [](const std::string& path) {
    return std::any_of(project().begin(), project().end(),
                       [&](const SourceFile& file) { return file.path == path; });
  };
  CHECK(project().size() > 50);
  CHECK(has("dev"));
  CHECK(has("plan/model.h"));
  CHECK(has("tests/tidy/tidy_test.cpp"));
}

TEST_CASE("lines, tabs and file sizes keep their limits") {
  CHECK(everywhere(layout_violations) == "");
}

TEST_CASE("nothing is left undone, and no path of one machine is in the project") {
  CHECK(everywhere(word_violations) == "");
}

TEST_CASE("libraries stay in their rooms, and heavy headers out of headers") {
  CHECK(everywhere(library_violations) == "");
}

TEST_CASE("arrows between folders point down only") { CHECK(everywhere(layer_violations) == ""); }

TEST_CASE("every header is guarded against being included twice") {
  Violations found;
  for (const auto& file : project()) {
    if (file.is_header() && file.text.find("#pragma once\n") == std::string::npos)
      found.push_back(file.path);
  }
  CHECK(joined(found) == "");
}

// Two types of one name in two headers are one to the linker: functions that are made for the one
// then serve the other.
TEST_CASE("no two headers define a type of the same name") {
  const std::regex definition("^(?:struct|class|enum class) (\\w+)(?: final)?(?: ?:[^:;].*)? \\{");
  std::map<std::string, std::string> header_of;
  Violations found;
  for (const auto& file : project()) {
    if (!file.is_header()) continue;
    for (const std::string& line : file.lines) {
      std::smatch match;
      if (!std::regex_search(line, match, definition)) continue;
      const auto [at, is_new] = header_of.try_emplace(match[1], file.path);
      if (!is_new) found.push_back(match[1].str() + ": " + at->second + " and " + file.path);
    }
  }
  CHECK(header_of.size() > 200);
  CHECK(joined(found) == "");
}

TEST_CASE("every source file is built") {
  std::string lists;
  for (const auto& file : project())
    if (file.path.ends_with("CMakeLists.txt")) lists += file.text;
  Violations found;
  for (const auto& file : project()) {
    if (!file.is_code() || file.is_header()) continue;
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    if (lists.find(name) == std::string::npos) found.push_back(file.path);
  }
  CHECK(joined(found) == "");
}

TEST_CASE("every scenario is named by a page or a test") {
  Violations found;
  for (const auto& file : project()) {
    if (!file.path.starts_with("scenarios/") || file.extension() != ".json") continue;
    const std::string name = file.path.substr(10, file.path.size() - 10 - 5);
    if (!mentioned(name)) found.push_back(file.path);
  }
  CHECK(joined(found) == "");
}

TEST_CASE("the README asks the question of every scenario") {
  const auto& files = project();
  const auto readme = std::find_if(files.begin(), files.end(),
                                   [](const auto& file) { return file.path == "README.md"; });
  REQUIRE(readme != files.end());
  Violations found;
  for (const auto& file : files) {
    const bool is_scenario = file.path.starts_with("scenarios/") &&
                             file.path.find('/', 10) == std::string::npos &&
                             file.extension() == ".json";
    if (is_scenario && readme->text.find("](" + file.path + ")") == std::string::npos)
      found.push_back(file.path);
  }
  CHECK(joined(found) == "");
}
