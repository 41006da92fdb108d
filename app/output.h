#pragma once
#include <string>
#include <string_view>

#include "app/terminal.h"
#include "plan/problem.h"

namespace rehearse {

/// Results go to stdout or, for a path other than "-" and "", whole into a file. Throws
/// std::runtime_error where they cannot be written, a full disk behind stdout included.
void write_result(const std::string& path, std::string_view text, bool force);

/// Refuses early, before anything is computed for it, a file that `write_result` would refuse.
void refuse_existing(const std::string& path, bool force);

/// The whole text of a file, or of stdin for "-". Throws std::runtime_error.
std::string read_whole(const std::string& path);

/// One line on stderr, "rehearse: …".
void note(const std::string& text);
void report_error(const std::string& text, const std::string& hint = "");

/// All problems with their places, on stderr.
void report_problems(const Problems& problems);

bool stdout_takes_color(ColorMode mode);

}  // namespace rehearse
