#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rehearse {

/// What a quantity measures. A quantity is written as text with a unit ("400 Gbit/s") or as a
/// plain number in the SI unit named here.
enum class Dimension : std::uint8_t {
  Count,           ///< no unit: "300e9", "300 B" (10⁹), "15 T" (10¹²)
  Bytes,           ///< bytes: "80 GB" (10⁹), "80 GiB" (2³⁰)
  BytesPerSecond,  ///< bytes/s: "400 Gbit/s", "50 GB/s"
  Seconds,         ///< s: "5 us", "2.5 ms", "3 h", "30 days"
  FlopsPerSecond,  ///< FLOP/s: "989 TFLOP/s"
  Hertz,           ///< Hz: "1.98 GHz"
  Watts,           ///< W: "700 W", "10.2 kW"
  UsdPerHour,      ///< USD/h: "2.5 USD/h"
};

/// "bytes/s", … the unit of a plain number.
const char* unit_name(Dimension dimension);
/// What people write, for hints: "400 Gbit/s".
const char* unit_example(Dimension dimension);
/// Every unit the dimension knows, in order of size, for hints and the reference.
std::vector<std::string> unit_spellings(Dimension dimension);

struct ParsedQuantity {
  std::optional<double> value;  ///< in the dimension's SI unit; always finite
  std::string fault;            ///< why there is no value, a sentence without a full stop
  std::string hint;
};
/// Reads "400 Gbit/s" and its kin. A number without a unit is in the SI unit.
ParsedQuantity parse_quantity(std::string_view text, Dimension dimension);

/// The quantity for people, with its unit and up to four significant digits: "400 Gbit/s" stays
/// "50 GB/s", since bandwidths are shown in bytes. Seconds from ns to days.
std::string format_quantity(double value, Dimension dimension);
std::string format_bytes(double bytes);           ///< SI: "85.9 GB"
std::string format_binary_bytes(double bytes);    ///< binary: "80 GiB"
std::string format_rate(double bytes_per_s);      ///< "50 GB/s"
std::string format_bit_rate(double bytes_per_s);  ///< "400 Gbit/s"
std::string format_seconds(double seconds);       ///< "5 us", "12.3 ms", "3.47 days"
std::string format_flops(double flops_per_s);     ///< "989 TFLOP/s"
std::string format_count(double count);           ///< "174.6 B", "1.008 T", "3072"

}  // namespace rehearse
