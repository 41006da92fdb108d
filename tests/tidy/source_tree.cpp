#include "tests/tidy/source_tree.h"

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace rehearse::tidy {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kTextExtensions{".h",  ".cpp",  ".cu",   ".cuh",   ".txt", ".md",
                                            ".sh", ".json", ".html", ".cmake", ".js",  ".css"};
const std::set<std::string> kTextNames{"dev", "run", ".clang-format", ".gitignore", "LICENSE"};

bool left_out(const fs::path& path) {
  const std::string first = path.begin()->string();
  return first == "build" || first == "results" || first == ".git" || first == ".cache" ||
         first == ".vscode" || first == ".idea";
}

}  // namespace

std::string SourceFile::folder() const {
  const auto slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string SourceFile::extension() const { return fs::path(path).extension().string(); }

bool SourceFile::is_code() const {
  return is_header() || extension() == ".cpp" || extension() == ".cu";
}

std::vector<SourceFile> source_files(const fs::path& root) {
  std::vector<SourceFile> files;
  for (auto at = fs::recursive_directory_iterator(root); at != fs::end(at); ++at) {
    const fs::path path = at->path().lexically_relative(root);
    if (left_out(path)) {
      at.disable_recursion_pending();
      continue;
    }
    if (!at->is_regular_file()) continue;
    if (!kTextExtensions.contains(path.extension()) && !kTextNames.contains(path.filename()))
      continue;
    SourceFile file{.path = path.generic_string(), .text = {}, .lines = {}};
    std::ostringstream text;
    text << std::ifstream(at->path()).rdbuf();
    file.text = std::move(text).str();
    std::istringstream lines(file.text);
    for (std::string line; std::getline(lines, line);) file.lines.push_back(line);
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

std::vector<std::string> includes(const SourceFile& file) {
  static const std::regex kInclude("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]");
  std::vector<std::string> found;
  for (const auto& line : file.lines) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) found.push_back(match[1]);
  }
  return found;
}

}  // namespace rehearse::tidy
