#include "kernels/ops/cpu/dense_product.h"

// One binary serves processors with and without wide vectors; the loader picks the version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define REHEARSE_VECTOR_VERSIONS \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define REHEARSE_VECTOR_VERSIONS
#endif

namespace rehearse {

REHEARSE_VECTOR_VERSIONS
void multiply_add(Block c, ConstBlock a, ConstBlock b, const ProductSizes& sizes) {
  constexpr std::int64_t kUnroll = 4;  // rows of b a pass over a row of c: fewer loads of c
  for (std::int64_t i = 0; i < sizes.m; ++i) {
    double* row = c.data + i * c.stride;
    const double* factors = a.data + i * a.stride;
    std::int64_t p = 0;
    for (; p + kUnroll <= sizes.k; p += kUnroll) {
      const double* b0 = b.data + p * b.stride;
      const double* b1 = b0 + b.stride;
      const double* b2 = b1 + b.stride;
      const double* b3 = b2 + b.stride;
      const double f0 = factors[p], f1 = factors[p + 1], f2 = factors[p + 2], f3 = factors[p + 3];
      for (std::int64_t j = 0; j < sizes.n; ++j)
        row[j] += f0 * b0[j] + f1 * b1[j] + f2 * b2[j] + f3 * b3[j];
    }
    for (; p < sizes.k; ++p)
      for (std::int64_t j = 0; j < sizes.n; ++j) row[j] += factors[p] * b.data[p * b.stride + j];
  }
}

void transpose(Block out, ConstBlock in, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      out.data[j * out.stride + i] = in.data[i * in.stride + j];
}

}  // namespace rehearse
