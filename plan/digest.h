#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace rehearse {

/// FNV-1a, 64 bits: the same on every machine and in every version. Source: Fowler, Noll, Vo,
/// draft-eastlake-fnv (offset basis 14695981039346656037, prime 1099511628211).
constexpr std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char byte : bytes) {
    hash ^= static_cast<unsigned char>(byte);
    hash *= 1099511628211u;
  }
  return hash;
}

/// 16 hexadecimal digits.
inline std::string hexadecimal(std::uint64_t value) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += kHex[(value >> shift) & 15];
  return text;
}
inline std::string digest_text(std::string_view bytes) { return hexadecimal(fnv1a(bytes)); }

}  // namespace rehearse
