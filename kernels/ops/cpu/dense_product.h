#pragma once
#include <cstdint>

namespace rehearse {

/// A row-major block of doubles whose rows lie `stride` elements apart.
struct ConstBlock {
  const double* data = nullptr;
  std::int64_t stride = 0;
};
struct Block {
  double* data = nullptr;
  std::int64_t stride = 0;
};
struct ProductSizes {
  std::int64_t m = 0, n = 0, k = 0;
};

/// c(m,n) += a(m,k)·b(k,n) in fp64, on the calling thread. The innermost loop runs along rows, so
/// that the compiler vectorises it.
void multiply_add(Block c, ConstBlock a, ConstBlock b, const ProductSizes& sizes);

/// out(columns,rows) = in(rows,columns)ᵀ.
void transpose(Block out, ConstBlock in, std::int64_t rows, std::int64_t columns);

}  // namespace rehearse
