#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "kernels/ops/compute_device.h"
#include "kernels/profiler/profile_task.h"

namespace rehearse {

/// What tensors are filled from, made once: on the host a pattern for each kind of contents, which
/// the device repeats over the tensor by itself. Making gigabytes on the host and sending them
/// would take longer than measuring.
class FillData {
 public:
  explicit FillData(std::uint64_t seed);
  /// Fills the tensor at `memory`. Past the pattern's length, what is there is repeated; offsets
  /// do not repeat.
  void fill(ComputeDevice& device, const TaskTensor& tensor, std::byte* memory);

 private:
  using Key = std::tuple<DType, TaskTensor::Fill, std::int64_t>;
  const std::vector<std::byte>& pattern_of(const TaskTensor& tensor);
  void set(std::vector<std::byte>& memory, const TaskTensor& tensor, std::size_t i) const;

  std::vector<float> normal_;
  std::vector<std::uint32_t> words_;
  std::map<Key, std::vector<std::byte>> patterns_;
};

/// Device memory that tasks use one after the other: allocating gigabytes for each would take
/// longer than measuring.
class Arena {
 public:
  explicit Arena(ComputeDevice& device) : device_(device) {}
  ComputeDevice& device() const { return device_; }
  /// At least this much; what an earlier call gave is no longer valid.
  std::byte* reserve(std::size_t bytes) {
    if (bytes > buffer_.bytes()) {
      buffer_ = DeviceBuffer();  // both at once might not fit
      buffer_ = DeviceBuffer(device_, bytes);
    }
    return static_cast<std::byte*>(buffer_.data());
  }

 private:
  ComputeDevice& device_;
  DeviceBuffer buffer_;
};

/// Several sets of a task's operands, so that no call finds its own in the cache.
class Operands {
 public:
  Operands(const ProfileTask& task, Arena& arena, FillData& data, int sets);
  const std::vector<OperatorCall>& calls() const { return calls_; }
  std::vector<OperatorCall> rotated(std::size_t count) const;

 private:
  std::vector<OperatorCall> calls_;
};

}  // namespace rehearse
