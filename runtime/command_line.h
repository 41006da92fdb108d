#pragma once
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace rehearse {

// Exit codes, the same for all of the project's programs.
inline constexpr int kExitDone = 0;
inline constexpr int kExitEnvironment = 1;  ///< a file, a library or a process failed
inline constexpr int kExitBadInput = 2;     ///< a command line or a file cannot be understood
inline constexpr int kExitInfeasible = 3;   ///< all is valid, but no plan fits
inline constexpr int kExitTolerance = 4;    ///< a measurement misses what it is held to

/// The command line cannot be understood: exit 2. `hint` may be empty.
struct ArgumentError : std::runtime_error {
  explicit ArgumentError(const std::string& sentence, std::string hint_text = {})
      : std::runtime_error(sentence), hint(std::move(hint_text)) {}
  std::string hint;
};

using Arguments = std::span<const std::string>;

/// A verb of one of the small programs (those that must build without a command line library).
struct Verb {
  std::string name;
  std::string synopsis;  ///< what follows the name: "[--json]"
  std::string summary;
  int (*run)(Arguments) = nullptr;  ///< gets what follows the name; returns the exit code
};

struct Program {
  std::string name;
  std::string summary;
  std::string version;  ///< with the libraries it holds
  std::vector<Verb> verbs;
};

/// Finds the command that the first argument names and runs it. Help and version go to stdout;
/// errors to stderr with their exit code: ArgumentError 2, any other exception 1.
int run_program(const Program& program, Arguments arguments);

/// "did you mean …?" for an option or argument among those known, else empty.
std::string meant(const std::string& text, const std::vector<std::string>& known);

}  // namespace rehearse
