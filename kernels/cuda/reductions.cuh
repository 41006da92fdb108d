#pragma once
#include "kernels/cuda/elements.cuh"

namespace rehearse {

constexpr unsigned kFullWarp = 0xffffffffu;

struct Plus {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

/// All lanes get the result. The butterfly adds in the same order every time.
template <typename T, typename Operation>
__device__ __forceinline__ T warp_reduce(T value, Operation operation) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value = operation(value, __shfl_xor_sync(kFullWarp, value, mask));
  return value;
}

/// All threads get the result. REQUIRES: blockDim.x is a multiple of 32 and all threads call;
/// `scratch` is shared memory of 32 elements, free again after the call.
template <typename T, typename Operation>
__device__ __forceinline__ T block_reduce(T value, Operation operation, T identity, T* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  value = warp_reduce(value, operation);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / 32 ? scratch[lane] : identity;
  value = warp_reduce(value, operation);
  __syncthreads();
  return value;
}

}  // namespace rehearse
