#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "kernels/profile.h"
#include "plan/problem.h"

namespace rehearse {

/// Reads a profile/1. Every mistake becomes a located problem, and nothing is returned then.
std::optional<Profile> read_profile(std::string_view text, const std::string& path,
                                    Problems& problems);

/// The profile as JSON; reading it back gives the same prices.
std::string write_profile(const Profile& profile);

}  // namespace rehearse
