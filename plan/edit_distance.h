#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace rehearse {

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other
/// (optimal string alignment), or `limit` + 1 if there are more than `limit`. Letters compare
/// without case. O(|a|·|b|).
int edit_distance(std::string_view a, std::string_view b, int limit);

/// The known name that was probably meant: the only one that starts with `text`, or the nearest
/// within three edits (fewer for short names); of equals the one with the longest common begin,
/// then the first. Empty if none is near.
std::string did_you_mean(std::string_view text, const std::vector<std::string>& known);

/// A hint from it: `did you mean "x"?`, or the list of all names where it is short, or nothing.
std::string name_hint(std::string_view text, const std::vector<std::string>& known);

}  // namespace rehearse
