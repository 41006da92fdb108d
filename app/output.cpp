#include "app/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "plan/write_file.h"

namespace rehearse {

void write_result(const std::string& path, std::string_view text, bool force) {
  if (!path.empty() && path != "-") return write_file_whole(path, text, force);
  const std::size_t written = std::fwrite(text.data(), 1, text.size(), stdout);
  if (written != text.size() || std::fflush(stdout) != 0)
    throw std::runtime_error(std::string("writing to stdout: ") + std::strerror(errno));
}

void refuse_existing(const std::string& path, bool force) {
  if (path.empty() || path == "-") return;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw std::runtime_error(path + " is a directory");
  if (!force && std::filesystem::exists(path, ignored))
    throw std::runtime_error(path + " exists; --force overwrites it");
}

std::string read_whole(const std::string& path) {
  if (path == "-")
    return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw std::runtime_error(path + " is a directory");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw std::runtime_error("cannot read " + path);
  return text;
}

void note(const std::string& text) { fmt::print(stderr, "rehearse: {}\n", printable(text)); }

void report_error(const std::string& text, const std::string& hint) {
  fmt::print(stderr, "rehearse: error: {}\n", printable(text));
  if (!hint.empty()) fmt::print(stderr, "help: {}\n", printable(hint));
}

void report_problems(const Problems& problems) {
  const std::string text = problems.text();
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool stdout_takes_color(ColorMode mode) { return wants_color(mode, isatty(STDOUT_FILENO) == 1); }

}  // namespace rehearse
