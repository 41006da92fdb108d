#pragma once
// The tensor-core and copy instructions of kernels/cuda/instructions.cuh, on the CPU. Layouts of
// the fragments are those of the PTX ISA 8.5, section 9.7.14.5 ("Matrix fragments for mma.m16n8k16"
// and "ldmatrix"), written independently of the kernels that use them.
#include "kernels/cuda/emulation/cuda_language.h"

namespace rehearse {

struct MmaOperand {
  float* d;
  std::uint32_t a[4];
  std::uint32_t b[2];
};

inline float half_of(std::uint32_t word, int which) {
  return to_float(Bf16{static_cast<std::uint16_t>(word >> (16 * which))});
}

/// d(16×8) += a(16×16) · b(16×8), spread over the lanes of a warp. With group = lane / 4 and
/// place = lane % 4: a's register r holds row group + 8·(r%2), columns 2·place + 8·(r/2) and the
/// next; b's register r holds rows 2·place + 8·r and the next, column group; d's element i holds
/// row group + 8·(i/2), column 2·place + i%2.
inline void emulated_mma(const LaneOperands& lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& one = *static_cast<const MmaOperand*>(lanes[static_cast<std::size_t>(lane)]);
    const int group = lane / 4, place = lane % 4;
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < 2; ++i)
        a[group + 8 * (r % 2)][2 * place + 8 * (r / 2) + i] = half_of(one.a[r], i);
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < 2; ++i) b[2 * place + 8 * r + i][group] = half_of(one.b[r], i);
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    float* d = static_cast<MmaOperand*>(lanes[static_cast<std::size_t>(lane)])->d;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      for (int k = 0; k < 16; ++k) d[i] += a[row][k] * b[k][column];
    }
  }
}

inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                     std::uint32_t b1) {
  MmaOperand mine{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulated_warp_step(&mine, emulated_mma);
}

struct LoadMatrixOperand {
  const void* row;
  std::uint32_t result[4];
  bool transposed;
};

/// Four 8×8 matrices of 16-bit elements; row r of matrix i lies where lane 8·i + r points. Lane l
/// gets elements (l/4, 2·(l%4)) and the next of each; transposed, (2·(l%4), l/4) and the one below.
inline void emulated_load_matrix(const LaneOperands& lanes) {
  std::uint16_t matrix[4][8][8];
  for (int lane = 0; lane < kWarpLanes; ++lane)
    std::memcpy(matrix[lane / 8][lane % 8],
                static_cast<const LoadMatrixOperand*>(lanes[static_cast<std::size_t>(lane)])->row,
                16);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto& one = *static_cast<LoadMatrixOperand*>(lanes[static_cast<std::size_t>(lane)]);
    const int major = lane / 4, minor = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t low = one.transposed ? matrix[i][minor][major] : matrix[i][major][minor];
      const std::uint32_t high =
          one.transposed ? matrix[i][minor + 1][major] : matrix[i][major][minor + 1];
      one.result[i] = low | high << 16;
    }
  }
}

inline void emulated_load(std::uint32_t (&result)[4], const void* row, bool transposed) {
  emulated_access(row, 16);
  LoadMatrixOperand mine{row, {}, transposed};
  emulated_warp_step(&mine, emulated_load_matrix);
  for (int i = 0; i < 4; ++i) result[i] = mine.result[i];
}
inline void load_matrices(std::uint32_t (&result)[4], const void* row) {
  emulated_load(result, row, false);
}
inline void load_matrices_transposed(std::uint32_t (&result)[4], const void* row) {
  emulated_load(result, row, true);
}

inline void copy_async_16(void* shared, const void* global, bool valid) {
  emulated_copy(shared, valid ? global : nullptr, 16);
}
inline void copy_async_4(void* shared, const void* global, bool valid) {
  emulated_copy(shared, valid ? global : nullptr, 4);
}
inline void copy_async_commit() { emulated_copy_commit(); }
template <int kPending>
void copy_async_wait() {
  emulated_copy_wait(kPending);
}

inline void expect_access(const void* address, std::size_t bytes) {
  emulated_access(address, bytes);
}

inline float exp2_fast(float x) { return std::exp2(x); }
inline std::uint32_t pack_bf16(float low, float high) {
  return to_bf16(low).bits | static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
}
inline float device_float(Bf16 x) { return to_float(x); }
inline Bf16 device_bf16(float x) { return to_bf16(x); }
inline void* dynamic_shared_memory() { return emulated_shared_memory(); }

}  // namespace rehearse
