#pragma once
#include <string_view>
#include <vector>

namespace rehearse {

/// A file of kernels/profiles, put into the program when it is built (embed_profiles.cmake).
struct EmbeddedProfile {
  std::string_view name;  ///< "h100-sxm-80gb.megatron"
  std::string_view text;
};
/// In order of their names.
const std::vector<EmbeddedProfile>& embedded_profiles();

}  // namespace rehearse
