#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "plan/model.h"
#include "plan/problem.h"

namespace rehearse {

/// Reads the config.json that models on the Hugging Face hub carry, for these `model_type`s:
/// llama, mistral, qwen2, gpt2, gpt_neox, nemotron. Keys that do not change the shape are passed
/// over; what would change it but is not modelled (another architecture, experts, a sliding
/// window, attention beside the feed-forward) is a problem, as is a missing size. All problems
/// are reported, with their places; the result is empty if there is any.
std::optional<Model> read_hugging_face(std::string_view text, const std::string& file,
                                       Problems& problems);

/// The same from a file; one that cannot be read is a problem.
std::optional<Model> read_hugging_face_file(const std::string& path, Problems& problems);

}  // namespace rehearse
