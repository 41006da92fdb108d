#include "plan/edit_distance.h"

#include <algorithm>
#include <cctype>

namespace rehearse {
namespace {

char lower(char letter) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
}

std::string lowered(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

/// Letters that two texts share at their begin: people mistype later letters more often.
std::size_t common_start(std::string_view a, std::string_view b) {
  std::size_t length = 0;
  while (length < std::min(a.size(), b.size()) && lower(a[length]) == lower(b[length])) ++length;
  return length;
}

/// A list of names longer than this is no help.
constexpr std::size_t kShortList = 12;

}  // namespace

int edit_distance(std::string_view a, std::string_view b, int limit) {
  const std::size_t longer = std::max(a.size(), b.size());
  const std::size_t shorter = std::min(a.size(), b.size());
  if (longer - shorter > static_cast<std::size_t>(limit)) return limit + 1;
  std::vector<int> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    next[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + change});
      const bool swapped = i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                           lower(a[i - 2]) == lower(b[j - 1]);
      if (swapped) next[j] = std::min(next[j], before[j - 2] + 1);
    }
    if (*std::min_element(next.begin(), next.end()) > limit) return limit + 1;
    std::swap(before, row);
    std::swap(row, next);
  }
  return std::min(row[b.size()], limit + 1);
}

std::string did_you_mean(std::string_view text, const std::vector<std::string>& known) {
  if (text.empty()) return "";
  // Three edits turn any three-letter word into any other: short names must be nearer.
  const int limit = std::min(static_cast<int>(text.size()) / 2, 3);
  int nearest = limit + 1;
  std::size_t common = 0;
  const std::string* best = nullptr;
  int starting = 0;
  const std::string* start = nullptr;
  for (const std::string& name : known) {
    const int distance = edit_distance(text, name, limit);
    const std::size_t same = common_start(text, name);
    if (distance < nearest || (distance == nearest && distance <= limit && same > common)) {
      nearest = distance;
      common = same;
      best = &name;
    }
    if (text.size() >= 2 && lowered(name).rfind(lowered(text), 0) == 0) {
      ++starting;
      start = &name;
    }
  }
  if (starting == 1 && nearest > 0) return *start;
  return best ? *best : "";
}

std::string name_hint(std::string_view text, const std::vector<std::string>& known) {
  const std::string meant = did_you_mean(text, known);
  if (!meant.empty()) return "did you mean \"" + meant + "\"?";
  if (known.empty() || known.size() > kShortList) return "";
  std::string hint = "known here: ";
  for (std::size_t i = 0; i < known.size(); ++i) hint += (i > 0 ? ", " : "") + known[i];
  return hint;
}

}  // namespace rehearse
