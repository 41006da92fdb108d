#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace rehearse {

enum class ColorMode : std::uint8_t { Auto, Always, Never };

/// What a text says beside its words. Colour is never the only signal.
enum class Tone : std::uint8_t { Plain, Strong, Good, Bad, Warning, Faint };

/// Whether escape codes may go to a stream: `mode` decides unless Auto; then NO_COLOR (set and
/// not empty) forbids, CLICOLOR_FORCE (set and not "0") asks for them, and else they go to
/// terminals other than TERM=dumb. Sources: no-color.org, bixense.com/clicolors.
bool wants_color(ColorMode mode, bool is_terminal);

/// Text in its tone for a stream that takes colours, or as it is.
std::string toned(std::string_view text, Tone tone, bool color);

/// Text whose control characters are shown as "\x1b", so that a name in a file cannot steer
/// the terminal. Line ends become spaces.
std::string printable(std::string_view text);

/// Columns that UTF-8 text takes, one a code point. Escape codes count nothing.
std::size_t display_width(std::string_view text);

/// Progress on stderr: one line that overwrites itself on a terminal, after half a second; a
/// line each 30 s where stderr is a log. Silent when quiet.
class Progress {
 public:
  Progress(std::string what, std::size_t total, bool quiet);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(std::size_t done);
  /// Takes the line away.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(std::size_t done, double elapsed_s) const;

  std::string what_;
  std::size_t total_;
  bool quiet_, is_terminal_;
  bool shown_ = false;
  Clock::time_point begin_ = Clock::now(), last_ = begin_;
};

}  // namespace rehearse
