#pragma once
#include <cstdint>

// Also compiled by nvcc, for the device.
#ifdef __CUDACC__
#define REHEARSE_HOST_DEVICE __host__ __device__
#else
#define REHEARSE_HOST_DEVICE
#endif

namespace rehearse {

struct PhiloxBlock {
  std::uint32_t word[4];
};

/// The keys of the ten rounds: the same for all counters of a seed.
struct PhiloxKeys {
  std::uint32_t round[10][2];
};
REHEARSE_HOST_DEVICE inline PhiloxKeys philox_keys(std::uint64_t seed) {
  PhiloxKeys keys{};
  for (std::uint32_t round = 0; round < 10; ++round) {
    keys.round[round][0] = static_cast<std::uint32_t>(seed) + round * 0x9E3779B9u;
    keys.round[round][1] = static_cast<std::uint32_t>(seed >> 32) + round * 0xBB67AE85u;
  }
  return keys;
}

/// Philox4x32-10: four random words of a counter and a key, without state (Salmon, Moraes, Dror
/// and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the multipliers and key
/// increments are its table 2's).
REHEARSE_HOST_DEVICE inline PhiloxBlock philox(std::uint64_t counter, const PhiloxKeys& keys) {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(counter),
                        static_cast<std::uint32_t>(counter >> 32), 0, 0};
  for (const auto& key : keys.round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    const std::uint32_t next0 = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ key[0];
    const std::uint32_t next2 = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ key[1];
    c[1] = static_cast<std::uint32_t>(p1);
    c[3] = static_cast<std::uint32_t>(p0);
    c[0] = next0;
    c[2] = next2;
  }
  return {{c[0], c[1], c[2], c[3]}};
}
REHEARSE_HOST_DEVICE inline PhiloxBlock philox(std::uint64_t counter, std::uint64_t seed) {
  return philox(counter, philox_keys(seed));
}

/// A word below the threshold is dropped: probability p < 1 of 2³² words. The largest float below 1
/// leaves 256 of them, so that 32 bits hold the threshold.
REHEARSE_HOST_DEVICE inline std::uint32_t dropout_threshold(float probability) {
  return static_cast<std::uint32_t>(static_cast<double>(probability) * 4294967296.0);
}

}  // namespace rehearse
