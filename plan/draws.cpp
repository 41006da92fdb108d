#include "plan/draws.h"

#include <cmath>
#include <numbers>

namespace rehearse {
namespace {

/// Finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit
/// of the value.
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

}  // namespace

std::uint64_t derived_seed(std::uint64_t seed, std::uint64_t purpose) {
  return mixed(mixed(seed) ^ purpose);
}

double uniform_draw(std::uint64_t seed, std::uint64_t index) {
  // The upper 53 bits are the numerator of a double; a half keeps the ends out.
  const std::uint64_t bits = mixed(mixed(seed) ^ mixed(~index)) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

double normal_draw(std::uint64_t seed, std::uint64_t index) {
  const double radius = std::sqrt(-2 * std::log(uniform_draw(seed, 2 * index)));
  return radius * std::cos(2 * std::numbers::pi * uniform_draw(seed, 2 * index + 1));
}

}  // namespace rehearse
