#include "plan/units.h"

#include <cmath>

#include "plan/edit_distance.h"
#include "tests/catch.h"

namespace rehearse {
namespace {

double value_of(const char* text, Dimension dimension) {
  const ParsedQuantity parsed = parse_quantity(text, dimension);
  INFO(text << ": " << parsed.fault);
  REQUIRE(parsed.value.has_value());
  return *parsed.value;
}

TEST_CASE("Quantities are read in their units") {
  CHECK(value_of("400 Gbit/s", Dimension::BytesPerSecond) == 50e9);
  CHECK(value_of("400Gb/s", Dimension::BytesPerSecond) == 50e9);
  CHECK(value_of("400 Gbps", Dimension::BytesPerSecond) == 50e9);
  CHECK(value_of("50 GB/s", Dimension::BytesPerSecond) == 50e9);
  CHECK(value_of("80 GiB", Dimension::Bytes) == 80.0 * 1024 * 1024 * 1024);
  CHECK(value_of(" 80 GB ", Dimension::Bytes) == 80e9);
  CHECK(value_of("5 us", Dimension::Seconds) == Approx(5e-6).epsilon(1e-15));
  CHECK(value_of("5 \u00B5s", Dimension::Seconds) == value_of("5 us", Dimension::Seconds));
  CHECK(value_of("5 \u03BCs", Dimension::Seconds) == value_of("5 us", Dimension::Seconds));
  CHECK(value_of("30 days", Dimension::Seconds) == 30.0 * 86400);
  CHECK(value_of("300e9", Dimension::Count) == 300e9);
  CHECK(value_of("300B", Dimension::Count) == 300e9);
  CHECK(value_of("1.5 T", Dimension::Count) == 1.5e12);
  CHECK(value_of("989 TFLOP/s", Dimension::FlopsPerSecond) == 989e12);
  CHECK(value_of("1.98 GHz", Dimension::Hertz) == Approx(1.98e9));
  CHECK(value_of("700 W", Dimension::Watts) == 700);
  CHECK(value_of("10.2 kW", Dimension::Watts) == Approx(10200));
  CHECK(value_of("2.5 USD/h", Dimension::UsdPerHour) == 2.5);
  CHECK(value_of("-3", Dimension::Seconds) == -3);
}

TEST_CASE("What is no quantity says why and how it is written") {
  const auto fault = [](const char* text, Dimension dimension) {
    const ParsedQuantity parsed = parse_quantity(text, dimension);
    CHECK_FALSE(parsed.value.has_value());
    return parsed.fault + " / " + parsed.hint;
  };
  CHECK(fault("fast", Dimension::BytesPerSecond) ==
        "\"fast\" does not begin with a number / write it like \"400 Gbit/s\"");
  CHECK(fault("", Dimension::Bytes) ==
        "\"\" does not begin with a number / write it like \"80 GiB\"");
  CHECK(fault("80 GIB", Dimension::Bytes) ==
        "the unit \"GIB\" is unknown here / did you mean \"GiB\"? a unit like that in "
        "\"80 GiB\" belongs here");
  CHECK(fault("80 GB", Dimension::Seconds).find("the unit \"GB\" is unknown here") == 0);
  CHECK(fault("1e999", Dimension::Bytes).find("too large") != std::string::npos);
  CHECK(fault("1e308 PB", Dimension::Bytes).find("too large") != std::string::npos);
  CHECK(fault("nan", Dimension::Bytes).find("does not begin with a number") != std::string::npos);
  CHECK(fault("inf s", Dimension::Seconds).find("does not begin") != std::string::npos);
}

TEST_CASE("Quantities are shown with a unit that leaves one to four digits before the point") {
  CHECK(format_bytes(85899345920.0) == "85.9 GB");
  CHECK(format_binary_bytes(85899345920.0) == "80 GiB");
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(999.99e9) == "1 TB");
  CHECK(format_rate(50e9) == "50 GB/s");
  CHECK(format_bit_rate(50e9) == "400 Gbit/s");
  CHECK(format_seconds(5e-6) == "5 us");
  CHECK(format_seconds(0.012345) == "12.35 ms");
  CHECK(format_seconds(300000) == "3.472 days");
  CHECK(format_seconds(-0.25) == "-250 ms");
  CHECK(format_flops(989e12) == "989 TFLOP/s");
  CHECK(format_count(174.6e9) == "174.6 B");
  CHECK(format_count(3072) == "3072");
  CHECK(format_count(12.5) == "12.5");
  CHECK(format_quantity(700, Dimension::Watts) == "700 W");
}

TEST_CASE("What is shown reads back to within its four digits") {
  for (const Dimension dimension :
       {Dimension::Count, Dimension::Bytes, Dimension::BytesPerSecond, Dimension::Seconds,
        Dimension::FlopsPerSecond, Dimension::Hertz, Dimension::Watts, Dimension::UsdPerHour}) {
    for (double value = 1.2345e-3; value < 1e17; value *= 7.3) {
      const std::string text = format_quantity(value, dimension);
      const ParsedQuantity parsed = parse_quantity(text, dimension);
      INFO(value << " is shown as " << text);
      REQUIRE(parsed.value.has_value());
      // Below the smallest unit there are fewer digits before the point, but never fewer after it.
      CHECK(std::abs(*parsed.value - value) <= 6e-4 * value);
    }
  }
}

TEST_CASE("The name that was meant is found within three edits or by its begin") {
  CHECK(edit_distance("kitten", "sitting", 3) == 3);
  CHECK(edit_distance("kitten", "sitting", 2) == 3);
  CHECK(edit_distance("ab", "ba", 3) == 1);
  CHECK(edit_distance("GB", "gb", 3) == 0);
  CHECK(edit_distance("", "abc", 3) == 3);
  const std::vector<std::string> names = {"gpt3-175b", "gpt3-13b", "llama3-70b", "llama3-405b"};
  CHECK(did_you_mean("gpt3-176b", names) == "gpt3-175b");
  CHECK(did_you_mean("lama3-70b", names) == "llama3-70b");
  CHECK(did_you_mean("llama3-4", names) == "llama3-405b");
  CHECK(did_you_mean("bert", names).empty());
  CHECK(did_you_mean("x", {"y", "z"}).empty());
  CHECK(did_you_mean("tpp", {"pp", "tp"}) == "tp");
  CHECK(name_hint("bert", {"a", "b"}) == "known here: a, b");
}

}  // namespace
}  // namespace rehearse
