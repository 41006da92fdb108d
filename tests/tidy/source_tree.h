#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace rehearse::tidy {

/// A text file of the project, by its path from the root ("plan/model.h").
struct SourceFile {
  std::string path;
  std::string text;
  std::vector<std::string> lines;

  std::string folder() const;     ///< first part of the path; empty at the root
  std::string extension() const;  ///< ".h"
  bool is_header() const { return extension() == ".h" || extension() == ".cuh"; }
  bool is_code() const;  ///< C++ or CUDA
};

/// Every text file of the project, by path: what a person wrote, without build output.
std::vector<SourceFile> source_files(const std::filesystem::path& root);

/// What stands between the quotes or brackets of the #include lines of a file.
std::vector<std::string> includes(const SourceFile& file);

// Each rule returns its violations as "path:line: sentence", so that a test shows all at once.
using Violations = std::vector<std::string>;

/// At most 100 columns (characters, not bytes), no tabs and no blanks at the end in code, scripts
/// and CMake files; at most 500 lines in a file of code.
Violations layout_violations(const SourceFile& file);
/// No word that says the work is not done, and no path of one machine.
Violations word_violations(const SourceFile& file);
/// Libraries only in the folders they belong to, and heavy headers never in headers.
Violations library_violations(const SourceFile& file);
/// Folders include only from those below them.
Violations layer_violations(const SourceFile& file);

}  // namespace rehearse::tidy
