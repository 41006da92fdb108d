#pragma once
// How kernels that work along rows share them among threads.
#include <algorithm>

#include "kernels/cuda/reductions.cuh"

namespace rehearse {

constexpr int kRowPacks = 4;       // of a row that a thread has under way at once
constexpr int kRowThreads = 256;   // of a block, whatever the rows' length
constexpr int kLongThreads = 512;  // of a block whose one row needs them

/// Threads along x share a row, in whole warps; a block has so many rows along y that it is never
/// small: a row of 768 bf16 is 96 packs, which alone would keep 24 threads busy.
inline dim3 row_block(std::int64_t packs, int packs_a_thread = kRowPacks,
                      int most_threads = kRowThreads) {
  const std::int64_t of_warp = std::int64_t{32} * packs_a_thread;
  const std::int64_t warps = std::max<std::int64_t>(1, (packs + of_warp - 1) / of_warp);
  const auto x = static_cast<unsigned>(std::min<std::int64_t>(32 * warps, most_threads));
  return {x, std::max(1u, kRowThreads / x), 1};
}
inline LaunchShape row_launch(std::int64_t rows, std::int64_t packs) {
  const dim3 block = row_block(packs);
  return {.grid = {blocks_for(rows, block.y)}, .block = block};
}

/// The row of this thread. Blocks at the end have some that do not exist.
__device__ __forceinline__ std::int64_t thread_row() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

/// Takes a row of h elements pack by pack: kRowPacks calls of `load(first element)`, then
/// `store(first element, what load gave)` for each.
template <int N, typename Load, typename Store>
__device__ __forceinline__ void row_pass(int h, const Load& load, const Store& store) {
  const int step = static_cast<int>(blockDim.x) * N;
  for (int first = static_cast<int>(threadIdx.x) * N; first < h; first += step * kRowPacks) {
    decltype(load(0)) loaded[kRowPacks];
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p)
      if (first + p * step < h) loaded[p] = load(first + p * step);
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p)
      if (first + p * step < h) store(first + p * step, loaded[p]);
  }
}

/// As block_reduce, among the threads of a row. REQUIRES: the block is row_block's, and all its
/// threads call; `scratch` is shared memory of 32 elements.
template <typename T, typename Operation>
__device__ __forceinline__ T row_reduce(T value, Operation operation, T identity, T* scratch) {
  value = warp_reduce(value, operation);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return value;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  T* mine = scratch + static_cast<int>(threadIdx.y) * warps;
  if (lane == 0) mine[warp] = value;
  __syncthreads();
  value = warp_reduce(lane < warps ? mine[lane] : identity, operation);
  __syncthreads();
  return value;
}

constexpr int kShareThreads = 32;  // squared: a block

/// out[column] = (accumulate ? out[column] : 0) + Σ over shares: kShareThreads threads a column
/// take every kShareThreads-th share, so that many reads are under way, and their sums are added
/// in their order. `Tag` keeps each file's kernel its own.
template <typename Tag>
__global__ void __launch_bounds__(kShareThreads* kShareThreads)
    add_shares_kernel(const float* shares, int count, std::int64_t stride, int columns, float* out,
                      bool accumulate) {
  __shared__ float sums[kShareThreads][kShareThreads];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int column = static_cast<int>(blockIdx.x) * kShareThreads + x;
  float sum = 0;
  if (column < columns)
#pragma unroll 4
    for (int i = y; i < count; i += kShareThreads) sum += shares[i * stride + column];
  sums[y][x] = sum;
  __syncthreads();
  if (y != 0 || column >= columns) return;
  sum = accumulate ? out[column] : 0.0f;
  for (int i = 0; i < kShareThreads; ++i) sum += sums[i][x];
  out[column] = sum;
}

template <typename Tag>
void add_shares(LaunchContext& context, const float* shares, int count, std::int64_t stride,
                int columns, float* out, bool accumulate) {
  launch(context,
         {.grid = {blocks_for(columns, kShareThreads)}, .block = {kShareThreads, kShareThreads}},
         add_shares_kernel<Tag>, shares, count, stride, columns, out, accumulate);
}

}  // namespace rehearse
