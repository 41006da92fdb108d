#include "runtime/train/tensor_pool.h"

#include <algorithm>
#include <utility>

namespace rehearse {

DeviceBuffer TensorPool::take(std::size_t bytes) {
  std::vector<DeviceBuffer>& free = free_[bytes];
  alive_bytes_ += bytes;
  most_alive_bytes_ = std::max(most_alive_bytes_, alive_bytes_);
  if (free.empty()) {
    allocated_bytes_ += bytes;
    return {*device_, bytes};
  }
  DeviceBuffer buffer = std::move(free.back());
  free.pop_back();
  return buffer;
}

void TensorPool::give_back(DeviceBuffer buffer) {
  const std::size_t bytes = buffer.bytes();
  alive_bytes_ -= bytes;
  free_[bytes].push_back(std::move(buffer));
}

void TensorPool::reserve(std::size_t bytes, int count) {
  for (int i = 0; i < count; ++i) {
    free_[bytes].emplace_back(*device_, bytes);
    allocated_bytes_ += bytes;
  }
}

Tensor::Tensor(TensorPool& pool, DType dtype, TensorShape shape)
    : block_(std::make_shared<Block>(
          pool, static_cast<std::size_t>(shape.elements()) * element_bytes(dtype))),
      view_(block_->buffer.data(), dtype, shape) {}

Tensor Tensor::as(TensorShape shape) const {
  Tensor other = *this;
  other.view_ = reshaped(view_, shape);
  return other;
}

Tensor Tensor::rows(std::int64_t first, std::int64_t count) const {
  Tensor other = *this;
  other.view_ = slice_rows(view_, first, count);
  return other;
}

Tensor int_tensor(TensorPool& pool, const std::vector<std::int32_t>& values) {
  Tensor tensor(pool, DType::I32, {static_cast<std::int64_t>(values.size())});
  pool.device().upload(tensor.view().data, values.data(), values.size() * sizeof(std::int32_t));
  return tensor;
}

}  // namespace rehearse
