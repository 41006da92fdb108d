#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace rehearse {

enum class DType : std::uint8_t { F32, Bf16, F64, F8E4m3, I32, U8 };
std::size_t element_bytes(DType dtype);
const char* dtype_name(DType dtype);

/// A bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even; NaN stays
/// NaN.
struct Bf16 {
  std::uint16_t bits = 0;
};
inline float to_float(Bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
inline Bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

/// The 8-bit float with 4 exponent and 3 mantissa bits (Micikevicius et al. 2022, arXiv
/// 2209.05433): bias 7, largest value 448, no infinities. Conversion rounds to nearest even and
/// saturates.
struct F8E4m3 {
  std::uint8_t bits = 0;
};
float to_float(F8E4m3 value);
F8E4m3 to_f8e4m3(float value);

/// Sizes of a tensor of up to four dimensions, outermost first. Elements are contiguous but for
/// the outermost dimension, whose entries lie `stride` elements apart: enough to read queries,
/// keys and values from one fused projection, and a slice of columns of a matrix.
struct TensorShape {
  static constexpr int kMaxRank = 4;

  TensorShape() = default;
  TensorShape(std::initializer_list<std::int64_t> sizes);

  int rank = 0;
  std::array<std::int64_t, kMaxRank> size{};
  std::int64_t stride = 0;

  std::int64_t elements() const;
  /// Elements of one entry of the outermost dimension.
  std::int64_t row_elements() const;
  bool contiguous() const { return rank == 0 || size[0] <= 1 || stride == row_elements(); }
  /// Sizes alike; strides may differ.
  bool same_sizes(const TensorShape& other) const;
  /// "[4, 1024, 64]".
  std::string text() const;
};

/// A tensor in somebody else's memory. An empty view (no data, rank 0) stands for "not given".
template <typename Pointer>
struct BasicTensorView {
  Pointer data = nullptr;
  DType dtype = DType::F32;
  TensorShape shape;

  BasicTensorView() = default;
  BasicTensorView(Pointer data_, DType dtype_, TensorShape shape_)
      : data(data_), dtype(dtype_), shape(shape_) {}
  /// A view to read from is made of one to write to.
  template <typename Other>
  BasicTensorView(const BasicTensorView<Other>& other)  // NOLINT: implicit on purpose
      : data(other.data), dtype(other.dtype), shape(other.shape) {}

  bool given() const { return shape.rank > 0; }
  std::int64_t size(int dimension) const { return shape.size[static_cast<std::size_t>(dimension)]; }
  std::int64_t elements() const { return shape.elements(); }
};
using TensorView = BasicTensorView<void*>;
using ConstTensorView = BasicTensorView<const void*>;

/// Columns [first, first + count) of a matrix, or middle entries [first, first + count) of a
/// (rows, entries, width) tensor: the outermost stride stays.
TensorView slice_columns(const TensorView& tensor, std::int64_t first, std::int64_t count);
ConstTensorView slice_columns(const ConstTensorView& tensor, std::int64_t first,
                              std::int64_t count);
/// Rows [first, first + count) of the outermost dimension.
TensorView slice_rows(const TensorView& tensor, std::int64_t first, std::int64_t count);
ConstTensorView slice_rows(const ConstTensorView& tensor, std::int64_t first, std::int64_t count);
/// The same elements under other sizes. REQUIRES: contiguous, and as many elements.
TensorView reshaped(const TensorView& tensor, TensorShape shape);
ConstTensorView reshaped(const ConstTensorView& tensor, TensorShape shape);

}  // namespace rehearse
