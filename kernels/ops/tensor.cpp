#include "kernels/ops/tensor.h"

#include <cmath>
#include <type_traits>

#include "plan/ensure.h"

namespace rehearse {

std::size_t element_bytes(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 8;
    case DType::F32:
    case DType::I32:
      return 4;
    case DType::Bf16:
      return 2;
    case DType::F8E4m3:
    case DType::U8:
      return 1;
  }
  ensure(false, "element_bytes knows every dtype");
  return 0;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "fp32";
    case DType::Bf16:
      return "bf16";
    case DType::F64:
      return "fp64";
    case DType::F8E4m3:
      return "fp8_e4m3";
    case DType::I32:
      return "int32";
    case DType::U8:
      return "uint8";
  }
  ensure(false, "dtype_name knows every dtype");
  return "";
}

float to_float(F8E4m3 value) {
  const int exponent = value.bits >> 3 & 15;
  const int mantissa = value.bits & 7;
  const float sign = (value.bits & 0x80) != 0 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

F8E4m3 to_f8e4m3(float value) {
  const auto sign = static_cast<std::uint8_t>(std::signbit(value) ? 0x80 : 0);
  if (std::isnan(value)) return {static_cast<std::uint8_t>(sign | 0x7f)};
  const float magnitude = std::fabs(value);
  if (magnitude >= 448.0f) return {static_cast<std::uint8_t>(sign | 0x7e)};
  if (magnitude < std::ldexp(1.0f, -6)) {  // subnormal: steps of 2^-9
    const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 9)));
    return {static_cast<std::uint8_t>(sign | steps)};
  }
  int exponent = std::ilogb(magnitude);
  auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));  // 8 … 16
  if (steps == 16) {
    steps = 8;
    ++exponent;
  }
  return {static_cast<std::uint8_t>(sign | (exponent + 7) << 3 | (steps - 8))};
}

TensorShape::TensorShape(std::initializer_list<std::int64_t> sizes) {
  ensure(sizes.size() <= kMaxRank, "a tensor has at most four dimensions");
  for (const std::int64_t one : sizes) size[static_cast<std::size_t>(rank++)] = one;
  stride = row_elements();
}

std::int64_t TensorShape::row_elements() const {
  std::int64_t product = 1;
  for (int i = 1; i < rank; ++i) product *= size[static_cast<std::size_t>(i)];
  return product;
}

std::int64_t TensorShape::elements() const { return rank == 0 ? 0 : size[0] * row_elements(); }

bool TensorShape::same_sizes(const TensorShape& other) const {
  return rank == other.rank && size == other.size;
}

std::string TensorShape::text() const {
  std::string text = "[";
  for (int i = 0; i < rank; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(size[static_cast<std::size_t>(i)]);
  }
  return text + "]";
}

namespace {

template <typename View>
View advanced(const View& tensor, std::int64_t elements) {
  using Byte = std::conditional_t<std::is_same_v<View, TensorView>, std::byte, const std::byte>;
  View result = tensor;
  result.data = static_cast<Byte*>(tensor.data) +
                elements * static_cast<std::int64_t>(element_bytes(tensor.dtype));
  return result;
}

template <typename View>
View columns_of(const View& tensor, std::int64_t first, std::int64_t count) {
  ensure(tensor.shape.rank >= 2, "columns are cut from a tensor of at least two dimensions");
  ensure(first >= 0 && count >= 0 && first + count <= tensor.size(1), "columns lie inside");
  View result = advanced(tensor, first * (tensor.shape.row_elements() / tensor.size(1)));
  result.shape.size[1] = count;
  return result;
}

template <typename View>
View rows_of(const View& tensor, std::int64_t first, std::int64_t count) {
  ensure(tensor.shape.rank >= 1, "rows are cut from a tensor");
  ensure(first >= 0 && count >= 0 && first + count <= tensor.size(0), "rows lie inside");
  View result = advanced(tensor, first * tensor.shape.stride);
  result.shape.size[0] = count;
  return result;
}

template <typename View>
View with_shape(const View& tensor, const TensorShape& shape) {
  ensure(tensor.shape.contiguous() && shape.elements() == tensor.elements(),
         "only a contiguous tensor is viewed under other sizes, with as many elements");
  View result = tensor;
  result.shape = shape;
  return result;
}

}  // namespace

TensorView slice_columns(const TensorView& tensor, std::int64_t first, std::int64_t count) {
  return columns_of(tensor, first, count);
}
ConstTensorView slice_columns(const ConstTensorView& tensor, std::int64_t first,
                              std::int64_t count) {
  return columns_of(tensor, first, count);
}
TensorView slice_rows(const TensorView& tensor, std::int64_t first, std::int64_t count) {
  return rows_of(tensor, first, count);
}
ConstTensorView slice_rows(const ConstTensorView& tensor, std::int64_t first, std::int64_t count) {
  return rows_of(tensor, first, count);
}
TensorView reshaped(const TensorView& tensor, TensorShape shape) {
  return with_shape(tensor, shape);
}
ConstTensorView reshaped(const ConstTensorView& tensor, TensorShape shape) {
  return with_shape(tensor, shape);
}

}  // namespace rehearse
