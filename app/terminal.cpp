#include "app/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

namespace rehearse {
namespace {

constexpr double kFirstShown_s = 0.5;
constexpr double kTerminalInterval_s = 0.1;
constexpr double kLogInterval_s = 30;

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

const char* escape_code(Tone tone) {
  switch (tone) {
    case Tone::Plain:
      return "";
    case Tone::Strong:
      return "\x1b[1m";
    case Tone::Good:
      return "\x1b[32m";
    case Tone::Bad:
      return "\x1b[31m";
    case Tone::Warning:
      return "\x1b[33m";
    case Tone::Faint:
      return "\x1b[2m";
  }
  return "";
}

bool is_continuation_byte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

bool wants_color(ColorMode mode, bool is_terminal) {
  if (mode != ColorMode::Auto) return mode == ColorMode::Always;
  if (is_set("NO_COLOR")) return false;
  if (is_set("CLICOLOR_FORCE") && std::string_view(std::getenv("CLICOLOR_FORCE")) != "0")
    return true;
  const char* term = std::getenv("TERM");
  return is_terminal && term != nullptr && std::string_view(term) != "dumb";
}

std::string toned(std::string_view text, Tone tone, bool color) {
  if (!color || tone == Tone::Plain || text.empty()) return std::string(text);
  return escape_code(tone) + std::string(text) + "\x1b[0m";
}

std::string printable(std::string_view text) {
  std::string result;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n' || c == '\t' || c == '\r')
      result += ' ';
    else if (byte < 0x20 || byte == 0x7F)
      result += fmt::format("\\x{:02x}", byte);
    else
      result += c;
  }
  return result;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if (!is_continuation_byte(text[i])) {
      ++width;
    }
  }
  return width;
}

Progress::Progress(std::string what, std::size_t total, bool quiet)
    : what_(std::move(what)), total_(total), quiet_(quiet), is_terminal_(isatty(STDERR_FILENO)) {
  const char* term = std::getenv("TERM");
  if (term == nullptr || std::string_view(term) == "dumb") is_terminal_ = false;
}

void Progress::update(std::size_t done) {
  if (quiet_) return;
  const auto now = Clock::now();
  const double elapsed_s = std::chrono::duration<double>(now - begin_).count();
  const double since_last_s = std::chrono::duration<double>(now - last_).count();
  if (is_terminal_) {
    if (elapsed_s < kFirstShown_s || (shown_ && since_last_s < kTerminalInterval_s)) return;
    fmt::print(stderr, "\r{}\x1b[K", line(done, elapsed_s));
    std::fflush(stderr);
    shown_ = true;
  } else {
    if (since_last_s < kLogInterval_s) return;
    fmt::print(stderr, "{}\n", line(done, elapsed_s));
  }
  last_ = now;
}

std::string Progress::line(std::size_t done, double elapsed_s) const {
  const double rate = elapsed_s > 0 ? static_cast<double>(done) / elapsed_s : 0;
  std::string text = fmt::format("[{}/{}] {}", done, total_, what_);
  if (done > 0 && done < total_)
    text +=
        fmt::format(" · {:.1f}/s · {:.0f} s left", rate, static_cast<double>(total_ - done) / rate);
  return text;
}

void Progress::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace rehearse
