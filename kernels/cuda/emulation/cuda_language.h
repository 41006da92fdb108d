#pragma once
// What kernels use of the CUDA language, for a plain C++ compiler: the sources in kernels/cuda/
// are compiled with this header in place of <cuda_runtime.h> when their threads are emulated.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/emulation/emulator.h"
#include "kernels/ops/tensor.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after the other, so that a block's variable may be the program's.
#define __shared__ static
#define threadIdx ::rehearse::emulated_thread_index
#define blockIdx ::rehearse::emulated_block_index
#define blockDim ::rehearse::emulated_block_size
#define gridDim ::rehearse::emulated_grid_size

using dim3 = rehearse::EmulatedDim;
using cudaStream_t = void*;

inline void __syncthreads() { rehearse::emulated_block_barrier(); }

namespace rehearse {

template <typename T>
struct ShuffleOperand {
  T value{};
  int source = 0;
  T result{};
};

/// Every lane gets the value of the lane it names; an ended lane gives the asker's own.
template <typename T>
T emulated_shuffle(T value, int source) {
  ShuffleOperand<T> mine{value, source, {}};
  emulated_warp_step(&mine, [](const LaneOperands& lanes) {
    for (void* one : lanes) {
      if (one == nullptr) continue;
      auto& lane = *static_cast<ShuffleOperand<T>*>(one);
      const void* from = lanes[static_cast<std::size_t>(lane.source & (kWarpLanes - 1))];
      lane.result =
          from == nullptr ? lane.value : static_cast<const ShuffleOperand<T>*>(from)->value;
    }
  });
  return mine.result;
}

inline int emulated_lane() {
  const EmulatedDim& index = emulated_thread_index;
  const EmulatedDim& size = emulated_block_size;
  return static_cast<int>((index.x + size.x * (index.y + size.y * index.z)) % kWarpLanes);
}

}  // namespace rehearse

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return rehearse::emulated_shuffle(value, rehearse::emulated_lane() ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return rehearse::emulated_shuffle(value, lane);
}
inline void __syncwarp() { rehearse::emulated_shuffle(0, 0); }

inline unsigned __ballot_sync(unsigned, bool yes) {
  struct Vote {
    bool yes;
    unsigned result;
  } mine{yes, 0};
  rehearse::emulated_warp_step(&mine, [](const rehearse::LaneOperands& lanes) {
    unsigned votes = 0;
    for (std::size_t i = 0; i < lanes.size(); ++i)
      if (lanes[i] != nullptr && static_cast<const Vote*>(lanes[i])->yes) votes |= 1u << i;
    for (void* one : lanes)
      if (one != nullptr) static_cast<Vote*>(one)->result = votes;
  });
  return mine.result;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float __fdividef(float a, float b) { return a / b; }
inline std::uint32_t __float_as_uint(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float __uint_as_float(std::uint32_t x) { return std::bit_cast<float>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
