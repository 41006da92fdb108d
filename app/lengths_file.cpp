#include "app/lengths_file.h"

#include <charconv>
#include <fstream>

namespace rehearse {
namespace {

constexpr int kLongest = 1'000'000'000;
constexpr std::size_t kMostLengths = 50'000'000;

std::string without_ends(const std::string& line) {
  const char* const blanks = " \t\r";
  const std::size_t first = line.find_first_not_of(blanks);
  if (first == std::string::npos) return "";
  return line.substr(first, line.find_last_not_of(blanks) - first + 1);
}

}  // namespace

std::string read_lengths(const std::string& path, std::vector<int>& lengths) {
  std::ifstream in(path);
  if (!in) return "there is no file " + path;
  lengths.clear();
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    const std::string text = without_ends(line);
    if (text.empty()) continue;
    int length = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, fault] = std::from_chars(text.data(), end, length);
    if (fault != std::errc() || rest != end || length < 1 || length > kLongest)
      return path + ", line " + std::to_string(number) + ": \"" + text.substr(0, 40) +
             "\" is no length of a document: a whole number from 1 to " + std::to_string(kLongest);
    if (lengths.size() >= kMostLengths)
      return path + " has more than " + std::to_string(kMostLengths) + " lengths";
    lengths.push_back(length);
  }
  return lengths.empty() ? path + " has no lengths" : "";
}

}  // namespace rehearse
