#pragma once
// Tiles of bf16 in shared memory and their fragments for mma.m16n8k16. Fragment layouts: PTX ISA
// 8.5, section 9.7.14.5.
#include "kernels/cuda/elements.cuh"

namespace rehearse {

/// Where 16-byte chunk `chunk` of row `row` lies, in elements. Rows lie one behind the other;
/// chunks of a row are exchanged so that the eight rows of an 8×8 matrix fall into different banks
/// (32 banks of 4 bytes, a chunk covers four): 8 chunks are 128 bytes, a full sweep of the banks.
template <int kColumns>
__device__ __forceinline__ int tile_offset(int row, int chunk) {
  constexpr int kChunks = kColumns / 8;
  static_assert(kChunks % 4 == 0, "a row is a multiple of 32 elements");
  if constexpr (kChunks % 8 == 0) return row * kColumns + (chunk ^ (row & 7)) * 8;
  // 4 or 12 chunks: two rows a sweep, so that rows differ in their lowest bit already.
  return row * kColumns + (chunk ^ (row >> 1 & 3)) * 8;
}

/// A matrix of rows in global memory, of which `rows` exist.
struct TileSource {
  const Bf16* data;
  std::int64_t stride;
  int rows;
};

/// Starts copying rows first … first + kRows − 1; rows that do not exist become zeros.
template <int kRows, int kColumns, int kThreads>
__device__ __forceinline__ void load_tile(Bf16* tile, const TileSource& source, int first) {
  constexpr int kChunks = kColumns / 8, kRowStep = kThreads / kChunks;
  // Where rows of a thread lie a multiple of 8 apart, their chunk is the same: one address serves
  // all of them, which leaves registers to the products.
  if constexpr (kThreads % kChunks == 0 && kRowStep % 8 == 0 && kRows % kRowStep == 0) {
    const int row = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    const Bf16* from = source.data + (first + row) * source.stride + chunk * 8;
    Bf16* to = tile + tile_offset<kColumns>(row, chunk);
#pragma unroll 2
    for (int i = 0; i < kRows / kRowStep; ++i) {
      const bool valid = first + row + i * kRowStep < source.rows;
      copy_async_16(to + i * kRowStep * kColumns,
                    valid ? from + i * kRowStep * source.stride : source.data, valid);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < (kRows * kChunks + kThreads - 1) / kThreads; ++i) {
    const int index = i * kThreads + static_cast<int>(threadIdx.x);
    if (kRows * kChunks % kThreads != 0 && index >= kRows * kChunks) break;
    const int row = index / kChunks, chunk = index % kChunks;
    const bool valid = first + row < source.rows;
    const std::int64_t from = valid ? (first + row) * source.stride + chunk * 8 : 0;
    copy_async_16(tile + tile_offset<kColumns>(row, chunk), source.data + from, valid);
  }
}

/// The left operand: rows row … row + 15, columns 16·step … 16·step + 15 of a tile (rows, k).
template <int kColumns>
__device__ __forceinline__ void load_left(std::uint32_t (&a)[4], const Bf16* tile, int row,
                                          int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_matrices(a, tile + tile_offset<kColumns>(row + lane % 16, 2 * step + lane / 16));
}

/// The left operand out of a tile stored (k, rows): k 16·step …, rows row ….
template <int kColumns>
__device__ __forceinline__ void load_left_transposed(std::uint32_t (&a)[4], const Bf16* tile,
                                                     int row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int k = 16 * step + lane / 16 * 8 + lane % 8;
  load_matrices_transposed(a, tile + tile_offset<kColumns>(k, row / 8 + lane / 8 % 2));
}

/// Two right operands (b[0], b[1] and b[2], b[3]) out of a tile stored (n, k): n row … row + 15,
/// k 16·step ….
template <int kColumns>
__device__ __forceinline__ void load_right(std::uint32_t (&b)[4], const Bf16* tile, int row,
                                           int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_matrices(
      b, tile + tile_offset<kColumns>(row + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
}

/// Two right operands out of a tile stored (k, n): k row … row + 15, n 16·pair … 16·pair + 15.
template <int kColumns>
__device__ __forceinline__ void load_right_transposed(std::uint32_t (&b)[4], const Bf16* tile,
                                                      int row, int pair) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_matrices_transposed(b, tile + tile_offset<kColumns>(row + lane % 16, 2 * pair + lane / 16));
}

/// Two neighbouring 16×8 results, turned into the left operand of a following product.
__device__ __forceinline__ void pack_left(std::uint32_t (&a)[4], const float (&first)[4],
                                          const float (&second)[4]) {
  a[0] = pack_bf16(first[0], first[1]);
  a[1] = pack_bf16(first[2], first[3]);
  a[2] = pack_bf16(second[0], second[1]);
  a[3] = pack_bf16(second[2], second[3]);
}

/// Stores two neighbouring results of a row.
__device__ __forceinline__ void store_pair(Bf16* to, float low, float high) {
  expect_access(to, 4);
  *reinterpret_cast<std::uint32_t*>(to) = pack_bf16(low, high);
}

}  // namespace rehearse
