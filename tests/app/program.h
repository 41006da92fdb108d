#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/child_process.h"

namespace rehearse {

/// Runs the built program with its colours off, and no settings of the caller.
ChildResult rehearse_program(const std::vector<std::string>& arguments);

/// A folder that disappears with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string text_of_file(const std::string& path);
void write_text(const std::string& path, const std::string& text);

/// A file of tests/app/ by its name.
std::string test_file(const std::string& name);

/// The text of tests/app/golden/NAME; with UPDATE_GOLDEN=1 it is replaced by `actual` first.
std::string golden(const std::string& name, const std::string& actual);

}  // namespace rehearse
