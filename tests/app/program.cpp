#include "tests/app/program.h"
#include "tests/places.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace rehearse {

ChildResult rehearse_program(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{
      "/usr/bin/env", "-u", "NO_COLOR", "-u", "CLICOLOR_FORCE", binary_directory() + "/rehearse"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_child(command);
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "rehearse-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string text_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string test_file(const std::string& name) { return source_directory() + "/tests/app/" + name; }

std::string golden(const std::string& name, const std::string& actual) {
  const std::string path = test_file("golden/" + name);
  const char* update = std::getenv("UPDATE_GOLDEN");
  if (update != nullptr && *update != '\0') write_text(path, actual);
  return std::filesystem::exists(path) ? text_of_file(path) : "";
}

}  // namespace rehearse
