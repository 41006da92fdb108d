#pragma once
#include <string>
#include <vector>

namespace rehearse {

/// What is wrong with a file of lengths, as a sentence; empty: nothing, and the lengths are filled.
/// One whole number of tokens a line, from 1 to a billion; empty lines are passed over.
std::string read_lengths(const std::string& path, std::vector<int>& lengths);

}  // namespace rehearse
