#include <cstdlib>

#include "app/number_format.h"
#include "app/terminal.h"
#include "app/text_table.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

TextTable sample_table() {
  TextTable table({{.title = "plan", .align = Align::Left, .least_width = 6},
                   {.title = "step", .unit = "s"},
                   {.title = "extra", .droppable = 1}});
  table.add_row({"a long name of a plan", "1.25", "12345"});
  table.add_row({"short", "10.50", "1"});
  return table;
}

}  // namespace

TEST_CASE("a table aligns its columns and puts units under the titles") {
  CHECK(sample_table().text(0, false) ==
        "  plan                    step  extra\n"
        "                             s\n"
        "  a long name of a plan   1.25  12345\n"
        "  short                  10.50      1\n");
}

TEST_CASE("a table that is too wide cuts names first, then leaves columns out") {
  const std::string cut = sample_table().text(30, false);
  CHECK(cut.find("a long name of …") != std::string::npos);
  CHECK(cut.find("12345") != std::string::npos);
  const std::string dropped = sample_table().text(16, false);
  CHECK(dropped.find("a lon…") != std::string::npos);
  CHECK(dropped.find("12345") == std::string::npos);
  for (std::size_t width = 15; width < 45; ++width) {
    const std::string text = sample_table().text(width, false);
    std::size_t begin = 0;
    for (std::size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
      CHECK(display_width(text.substr(begin, end - begin)) <= width);
  }
}

TEST_CASE("a sentence row takes the room of all columns after the first") {
  TextTable table = sample_table();
  table.add_sentence_row("odd", "cannot be", Tone::Bad);
  CHECK(table.text(0, false).find("  odd                    cannot be\n") != std::string::npos);
}

TEST_CASE("names cannot steer the terminal") {
  CHECK(printable("a\x1b[31mb\nc\x7f") == "a\\x1b[31mb c\\x7f");
  TextTable table({{.title = "x", .align = Align::Left}});
  table.add_row({"\x1b]0;title\x07"});
  CHECK(table.text(0, false).find('\x1b') == std::string::npos);
}

TEST_CASE("widths count characters, not bytes or escape codes") {
  CHECK(display_width("µs · 8×3") == 8);
  CHECK(display_width(toned("four", Tone::Bad, true)) == 4);
  CHECK(toned("four", Tone::Bad, false) == "four");
  CHECK(clipped("µµµµ", 3) == "µµ…");
  CHECK(clipped("µµµ", 3) == "µµµ");
}

TEST_CASE("sentences are broken between words, with the later lines indented") {
  CHECK(wrapped("one two three four", 9, 2) == "one two\n  three\n  four");
  CHECK(wrapped("unbreakable", 4, 2) == "unbreakable");
}

TEST_CASE("colours follow the option, then NO_COLOR, CLICOLOR_FORCE and TERM") {
  unsetenv("NO_COLOR");
  unsetenv("CLICOLOR_FORCE");
  setenv("TERM", "xterm", 1);
  CHECK(wants_color(ColorMode::Auto, true));
  CHECK_FALSE(wants_color(ColorMode::Auto, false));
  CHECK(wants_color(ColorMode::Always, false));
  setenv("CLICOLOR_FORCE", "1", 1);
  CHECK(wants_color(ColorMode::Auto, false));
  setenv("NO_COLOR", "1", 1);
  CHECK_FALSE(wants_color(ColorMode::Auto, true));
  CHECK(wants_color(ColorMode::Always, true));
  unsetenv("NO_COLOR");
  setenv("CLICOLOR_FORCE", "0", 1);
  setenv("TERM", "dumb", 1);
  CHECK_FALSE(wants_color(ColorMode::Auto, true));
  CHECK_FALSE(wants_color(ColorMode::Never, true));
}

TEST_CASE("a column's unit suits its largest number") {
  CHECK(time_unit(7.3).cell(0.25) == "0.250");
  CHECK(std::string(time_unit(0.73).unit) == "ms");
  CHECK(time_unit(0.73).cell(0.73) == "730.0");
  CHECK(std::string(time_unit(3e-6).unit) == "µs");
  CHECK(token_rate_unit(2.5e6).cell(2.5e6) == "2.500");
  CHECK(bytes_unit(80e9).cell(512e6) == "0.51");
}

TEST_CASE("differences carry their sign, and equal means equal to half a thousandth") {
  CHECK(difference(1.382, 1) == "+38.2 %");
  CHECK(difference(0.5, 1) == "-50.0 %");
  CHECK(difference(1.0004, 1) == "=");
}
