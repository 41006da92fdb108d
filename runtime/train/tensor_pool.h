#pragma once
#include <map>
#include <memory>
#include <vector>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// Device memory that is asked for and given back again and again, in the same sizes every step:
/// what is given back is kept for the next who asks for as many bytes.
class TensorPool {
 public:
  explicit TensorPool(ComputeDevice& device) : device_(&device) {}
  TensorPool(const TensorPool&) = delete;
  TensorPool& operator=(const TensorPool&) = delete;

  DeviceBuffer take(std::size_t bytes);
  void give_back(DeviceBuffer buffer);
  /// Bytes ever allocated: the high-water mark, since nothing goes back to the device.
  std::size_t allocated_bytes() const { return allocated_bytes_; }
  /// Of these, the most that tensors had at once.
  std::size_t most_alive_bytes() const { return most_alive_bytes_; }
  ComputeDevice& device() const { return *device_; }
  /// Goes on with what stands for the same device.
  void compute_on(ComputeDevice& device) { device_ = &device; }
  /// Allocates so many buffers beside those that there are.
  void reserve(std::size_t bytes, int count);

 private:
  ComputeDevice* device_;
  std::map<std::size_t, std::vector<DeviceBuffer>> free_;
  std::size_t allocated_bytes_ = 0, alive_bytes_ = 0, most_alive_bytes_ = 0;
};

/// A tensor on the device. Copies share the memory, which goes back to its pool with the last of
/// them: an activation is kept by each operator whose gradient needs it, for as long as it does.
class Tensor {
 public:
  Tensor() = default;
  Tensor(TensorPool& pool, DType dtype, TensorShape shape);

  bool given() const { return block_ != nullptr; }
  const TensorView& view() const { return view_; }
  operator TensorView() const { return view_; }       // NOLINT: implicit on purpose
  operator ConstTensorView() const { return view_; }  // NOLINT: implicit on purpose
  std::int64_t size(int dimension) const { return view_.size(dimension); }
  std::int64_t elements() const { return view_.elements(); }
  DType dtype() const { return view_.dtype; }

  /// The same memory under other sizes. REQUIRES: as many elements.
  Tensor as(TensorShape shape) const;
  /// Rows [first, first + count), in the same memory.
  Tensor rows(std::int64_t first, std::int64_t count) const;

 private:
  struct Block {
    Block(TensorPool& of, std::size_t bytes) : pool(&of), buffer(of.take(bytes)) {}
    ~Block() { pool->give_back(std::move(buffer)); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    TensorPool* pool;
    DeviceBuffer buffer;
  };
  std::shared_ptr<Block> block_;
  TensorView view_;
};

/// Numbers of the host, on the device.
Tensor int_tensor(TensorPool& pool, const std::vector<std::int32_t>& values);

}  // namespace rehearse
