#include "plan/units.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include "plan/edit_distance.h"
#include "plan/json_value.h"

namespace rehearse {
namespace {

/// A spelling and its size in the SI unit of its dimension.
using Unit = std::pair<std::string, double>;
using Units = std::vector<Unit>;

constexpr const char* kDecimalPrefixes[] = {"", "k", "M", "G", "T", "P"};
constexpr const char* kBinaryPrefixes[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi"};

/// The unit with prefixes from none to peta.
Units prefixed(const std::string& unit, double size, const char* const (&prefixes)[6],
               double step) {
  Units units;
  for (const char* prefix : prefixes) {
    units.emplace_back(prefix + unit, size);
    size *= step;
  }
  return units;
}

Units joined(std::initializer_list<Units> parts) {
  Units units;
  for (const Units& part : parts) units.insert(units.end(), part.begin(), part.end());
  return units;
}

Units make_units(Dimension dimension) {
  const auto& decimal = kDecimalPrefixes;
  switch (dimension) {
    case Dimension::Count:
      return {{"k", 1e3}, {"K", 1e3}, {"thousand", 1e3}, {"M", 1e6},  {"million", 1e6},
              {"B", 1e9}, {"G", 1e9}, {"billion", 1e9},  {"T", 1e12}, {"trillion", 1e12}};
    case Dimension::Bytes:
      return joined({prefixed("B", 1, decimal, 1000),
                     prefixed("B", 1, kBinaryPrefixes, 1024),
                     {{"KB", 1e3}, {"byte", 1}, {"bytes", 1}}});
    case Dimension::BytesPerSecond:
      return joined({prefixed("B/s", 1, decimal, 1000), prefixed("B/s", 1, kBinaryPrefixes, 1024),
                     prefixed("bit/s", 0.125, decimal, 1000), prefixed("b/s", 0.125, decimal, 1000),
                     prefixed("bps", 0.125, decimal, 1000)});
    case Dimension::Seconds:
      return {{"ns", 1e-9},    {"us", 1e-6},   {"\u00B5s", 1e-6}, {"\u03BCs", 1e-6},
              {"ms", 1e-3},    {"s", 1},       {"min", 60},       {"h", 3600},
              {"hours", 3600}, {"day", 86400}, {"d", 86400},      {"days", 86400}};
    case Dimension::FlopsPerSecond:
      return joined({prefixed("FLOP/s", 1, decimal, 1000), prefixed("FLOPS", 1, decimal, 1000),
                     prefixed("flops", 1, decimal, 1000)});
    case Dimension::Hertz:
      return prefixed("Hz", 1, decimal, 1000);
    case Dimension::Watts:
      return prefixed("W", 1, decimal, 1000);
    case Dimension::UsdPerHour:
      return {{"USD/h", 1}, {"$/h", 1}, {"USD/hour", 1}};
  }
  return {};
}

const Units& units_of(Dimension dimension) {
  constexpr std::size_t kDimensions = 8;
  static const std::vector<Units> all = [] {
    std::vector<Units> made;
    for (std::size_t i = 0; i < kDimensions; ++i)
      made.push_back(make_units(static_cast<Dimension>(i)));
    return made;
  }();
  return all[static_cast<std::size_t>(dimension)];
}

/// Up to four significant digits, without an exponent and without zeros at the end.
std::string short_number(double value) {
  if (value == 0) return "0";
  const int whole_digits = static_cast<int>(std::floor(std::log10(std::abs(value)))) + 1;
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", std::max(0, 4 - whole_digits), value);
  std::string text = buffer;
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

/// The value in the largest of the units (ascending) that leaves at least 1, rounded as shown:
/// 999.99 GB is "1 TB".
std::string in_units(double value, const Units& units) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < units.size(); ++i)
    if (std::abs(value) / units[i].second >= 0.99995) chosen = i;
  if (std::abs(value) / units[chosen].second >= 1e15)  // beyond any name: with an exponent
    return number_text(value / units[chosen].second) + ' ' + units[chosen].first;
  const std::string number = short_number(value / units[chosen].second);
  return units[chosen].first.empty() ? number : number + ' ' + units[chosen].first;
}

std::string without_blanks_around(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

ParsedQuantity wrong(std::string fault, std::string hint) {
  return {std::nullopt, std::move(fault), std::move(hint)};
}

}  // namespace

const char* unit_name(Dimension dimension) {
  constexpr const char* kNames[] = {"", "bytes", "bytes/s", "s", "FLOP/s", "Hz", "W", "USD/h"};
  return kNames[static_cast<std::size_t>(dimension)];
}

const char* unit_example(Dimension dimension) {
  constexpr const char* kExamples[] = {"300e9",       "80 GiB",   "400 Gbit/s", "5 us",
                                       "989 TFLOP/s", "1.98 GHz", "700 W",      "2.5 USD/h"};
  return kExamples[static_cast<std::size_t>(dimension)];
}

std::vector<std::string> unit_spellings(Dimension dimension) {
  std::vector<std::string> names;
  for (const Unit& unit : units_of(dimension)) names.push_back(unit.first);
  return names;
}

ParsedQuantity parse_quantity(std::string_view raw, Dimension dimension) {
  const std::string text = without_blanks_around(raw);
  const std::string example = "write it like " + json_quoted(unit_example(dimension));
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range)
    return wrong("the number in " + json_quoted(text) + " is too large or too small", example);
  if (error != std::errc() || !std::isfinite(number))
    return wrong(json_quoted(text) + " does not begin with a number", example);
  const std::string unit = without_blanks_around(std::string_view(rest, end));
  if (unit.empty()) return {number, "", ""};
  for (const Unit& known : units_of(dimension)) {
    if (known.first != unit) continue;
    const double value = number * known.second;
    if (!std::isfinite(value)) return wrong(json_quoted(text) + " is too large", example);
    return {value, "", ""};
  }
  const std::string meant = did_you_mean(unit, unit_spellings(dimension));
  const std::string what = dimension == Dimension::Count
                               ? "a plain number belongs here, or one with k, M, B or T"
                               : std::string("a unit like that in ") +
                                     json_quoted(unit_example(dimension)) + " belongs here";
  return wrong("the unit " + json_quoted(unit) + " is unknown here",
               meant.empty() ? what : "did you mean \"" + meant + "\"? " + what);
}

std::string format_quantity(double value, Dimension dimension) {
  switch (dimension) {
    case Dimension::Count:
      return format_count(value);
    case Dimension::Bytes:
      return format_bytes(value);
    case Dimension::BytesPerSecond:
      return format_rate(value);
    case Dimension::Seconds:
      return format_seconds(value);
    case Dimension::FlopsPerSecond:
      return format_flops(value);
    case Dimension::Hertz:
      return in_units(value, prefixed("Hz", 1, kDecimalPrefixes, 1000));
    case Dimension::Watts:
      return in_units(value, prefixed("W", 1, kDecimalPrefixes, 1000));
    case Dimension::UsdPerHour:
      return in_units(value, {{"USD/h", 1}});
  }
  return "";
}

std::string format_bytes(double bytes) {
  return in_units(bytes, prefixed("B", 1, kDecimalPrefixes, 1000));
}

std::string format_binary_bytes(double bytes) {
  return in_units(bytes, prefixed("B", 1, kBinaryPrefixes, 1024));
}

std::string format_rate(double bytes_per_s) {
  return in_units(bytes_per_s, prefixed("B/s", 1, kDecimalPrefixes, 1000));
}

std::string format_bit_rate(double bytes_per_s) {
  return in_units(bytes_per_s, prefixed("bit/s", 0.125, kDecimalPrefixes, 1000));
}

std::string format_seconds(double seconds) {
  if (seconds == 0) return "0 s";
  return in_units(seconds, {{"ns", 1e-9},
                            {"us", 1e-6},
                            {"ms", 1e-3},
                            {"s", 1},
                            {"min", 60},
                            {"h", 3600},
                            {"days", 86400}});
}

std::string format_flops(double flops_per_s) {
  return in_units(flops_per_s, prefixed("FLOP/s", 1, kDecimalPrefixes, 1000));
}

std::string format_count(double count) {
  // Up to a hundred thousand people read digits more easily than prefixes.
  if (std::abs(count) < 1e5) return in_units(count, {{"", 1}});
  return in_units(count, {{"k", 1e3}, {"M", 1e6}, {"B", 1e9}, {"T", 1e12}});
}

}  // namespace rehearse
