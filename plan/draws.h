#pragma once
#include <cstdint>

namespace rehearse {

/// Random numbers that are functions of a seed and an index: whoever asks, in whatever order, gets
/// the same. Independent for all practical purposes between seeds and between indices.

/// Uniform in (0, 1).
double uniform_draw(std::uint64_t seed, std::uint64_t index);
/// Of the standard normal distribution (Box and Muller 1958).
double normal_draw(std::uint64_t seed, std::uint64_t index);
/// Another seed for what is drawn beside.
std::uint64_t derived_seed(std::uint64_t seed, std::uint64_t purpose);

}  // namespace rehearse
