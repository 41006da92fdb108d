#pragma once
#include <source_location>
#include <string_view>

namespace rehearse {

/// Prints the sentence with its place in the source to stderr and aborts.
[[noreturn]] void ensure_failed(std::string_view sentence, const std::source_location& where);

/// Guards an invariant of this program. A failure is our own bug, never the user's: on in release
/// builds too. User mistakes go through `Problems`, failures of the world through exceptions.
inline void ensure(bool condition, std::string_view sentence,
                   const std::source_location& where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    ensure_failed(sentence, where);
}

}  // namespace rehearse
