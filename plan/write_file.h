#pragma once
#include <filesystem>
#include <string_view>

namespace rehearse {

/// Writes a file whole or not at all: a new file beside it is written, flushed to the disk and
/// renamed. An existing file is replaced only with `force`; directories and special files never.
/// Throws std::runtime_error with the path and the reason.
void write_file_whole(const std::filesystem::path& path, std::string_view text, bool force);

}  // namespace rehearse
