#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "tests/tidy/source_tree.h"

namespace rehearse::tidy {
namespace {

constexpr int kMaxColumns = 100;
constexpr std::size_t kMaxLines = 500;

std::string place(const SourceFile& file, std::size_t line_index) {
  return file.path + ":" + std::to_string(line_index + 1) + ": ";
}

/// Characters of a UTF-8 line: bytes that do not continue one.
int columns(const std::string& line) {
  return static_cast<int>(std::count_if(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool is_script(const SourceFile& file) {
  return file.extension() == ".sh" || file.path == "dev" || file.path == ".ci/run" ||
         file.path.ends_with("CMakeLists.txt");
}

/// A folder may include from itself and from these. tests/ may include from all.
const std::map<std::string, std::set<std::string>> kBelow{
    {"plan", {}},
    {"topologies", {"plan"}},
    {"kernels", {"plan"}},
    {"strategies", {"plan", "topologies", "kernels"}},
    {"sim", {"plan", "topologies", "kernels", "strategies"}},
    {"runtime", {"plan", "kernels"}},
    {"planner", {"plan", "topologies", "kernels", "strategies", "sim"}},
    {"app", {"plan", "topologies", "kernels", "strategies", "sim", "planner"}},
};

/// A library's headers, where they may be included, and whether in headers there.
struct LibraryRule {
  std::string name;
  std::regex header;
  std::vector<std::string> places;  ///< prefixes of paths
  bool in_headers;
};

const std::vector<LibraryRule>& library_rules() {
  static const std::vector<LibraryRule> kRules{
      {"SimGrid", std::regex("^(simgrid/|xbt/|smpi/).*"), {"sim/", "tests/sim/"}, true},
      {"Boost.Graph",
       std::regex("^boost/(graph|property_map)/.*"),
       {"topologies/", "tests/topologies/"},
       false},
      {"MPI", std::regex("^mpi\\.h$"), {"runtime/"}, true},
      {"CUDA",
       std::regex("^(cuda|cublas|cudnn|curand|cooperative_groups|nvml|nccl|cub/|thrust/|mma).*"),
       {"kernels/", "runtime/", "tests/kernels/", "tests/runtime/", "bench/"},
       true},
      {"nlohmann/json", std::regex("^nlohmann/json\\.hpp$"), {""}, false},
      {"CLI11", std::regex("^CLI/.*"), {"app/"}, false},
  };
  return kRules;
}

}  // namespace

Violations layout_violations(const SourceFile& file) {
  Violations found;
  if (!file.is_code() && !is_script(file)) return found;
  for (std::size_t i = 0; i < file.lines.size(); ++i) {
    const std::string& line = file.lines[i];
    if (columns(line) > kMaxColumns)
      found.push_back(place(file, i) + std::to_string(columns(line)) + " columns");
    if (line.find('\t') != std::string::npos) found.push_back(place(file, i) + "a tab");
    if (line.ends_with(' ')) found.push_back(place(file, i) + "blanks at the end");
  }
  if (file.is_code() && file.lines.size() > kMaxLines)
    found.push_back(file.path + ": " + std::to_string(file.lines.size()) + " lines");
  if (!file.text.empty() && !file.text.ends_with('\n'))
    found.push_back(file.path + ": no line feed at its end");
  return found;
}

Violations word_violations(const SourceFile& file) {
  // Written in parts, so that this file passes its own test.
  static const std::regex kUnfinished(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X)\\b");
  static const std::regex kMachinePath(
      "(^|[^A-Za-z0-9_.-])/(home|root|work|Users|mnt)/[A-Za-z0-9_.]");
  Violations found;
  for (std::size_t i = 0; i < file.lines.size(); ++i) {
    std::smatch match;
    if (std::regex_search(file.lines[i], match, kUnfinished))
      found.push_back(place(file, i) + "says " + match.str());
    if (std::regex_search(file.lines[i], match, kMachinePath))
      found.push_back(place(file, i) + "a path of one machine");
  }
  return found;
}

Violations library_violations(const SourceFile& file) {
  Violations found;
  if (!file.is_code()) return found;
  for (const auto& header : includes(file)) {
    for (const auto& rule : library_rules()) {
      if (!std::regex_match(header, rule.header)) continue;
      const bool allowed = std::any_of(rule.places.begin(), rule.places.end(),
                                       [&](const auto& at) { return file.path.starts_with(at); });
      if (!allowed) found.push_back(file.path + ": " + rule.name + " does not belong here");
      if (allowed && file.is_header() && !rule.in_headers)
        found.push_back(file.path + ": " + rule.name + " only in .cpp files");
    }
  }
  return found;
}

Violations layer_violations(const SourceFile& file) {
  Violations found;
  const auto below = kBelow.find(file.folder());
  if (below == kBelow.end() || !file.is_code()) return found;
  for (const auto& header : includes(file)) {
    const std::string folder = header.substr(0, header.find('/'));
    if (folder == header || folder == file.folder()) continue;
    // rehearse starts its two sister programs; the file that does so links nothing of theirs.
    if (file.folder() == "app" && header == "runtime/child_process.h") continue;
    if ((kBelow.contains(folder) || folder == "tests") && !below->second.contains(folder))
      found.push_back(file.path + ": " + file.folder() + "/ does not stand above " + header);
  }
  return found;
}

}  // namespace rehearse::tidy
