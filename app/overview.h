#pragma once
#include <string>
#include <vector>

namespace rehearse {

/// What a bare `rehearse` prints: what it is, three examples, the commands.
std::string overview_text();

/// What `list` can list.
const std::vector<std::string>& listable();

}  // namespace rehearse
