#pragma once
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/catch.h"

namespace rehearse {

inline std::string read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Checks a text against the file that holds what it should be. UPDATE_GOLDEN=1 in the
/// environment writes the file instead; look at the difference before committing it.
inline void check_golden(const std::string& path, const std::string& text) {
  if (const char* update = std::getenv("UPDATE_GOLDEN"); update && *update == '1')
    std::ofstream(path, std::ios::binary) << text;
  INFO("golden file " << path << "; UPDATE_GOLDEN=1 rewrites it");
  CHECK(read_whole_file(path) == text);
}

}  // namespace rehearse
