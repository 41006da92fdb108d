#include "kernels/profiler/operands.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace rehearse {
namespace {

constexpr std::size_t kPattern = (1 << 16) + 1;  // odd: rows do not repeat each other

template <typename T>
T& at(std::vector<std::byte>& memory, std::size_t index) {
  return reinterpret_cast<T*>(memory.data())[index];
}

}  // namespace

FillData::FillData(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  for (std::size_t i = 0; i < kPattern; ++i) {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    normal_.push_back(static_cast<float>(radius * std::cos(6.283185307179586 * uniform())));
    words_.push_back(static_cast<std::uint32_t>(random() >> 32));
  }
}

void FillData::fill(ComputeDevice& device, const TaskTensor& tensor, std::byte* memory) {
  const std::size_t bytes = tensor.bytes();
  if (tensor.fill == TaskTensor::Fill::Listed) {
    std::vector<std::int32_t> values;
    for (std::int64_t i = 0; i < tensor.shape.elements(); ++i) values.push_back(tensor.listed(i));
    device.upload(memory, values.data(), bytes);
    return;
  }
  const std::vector<std::byte>& pattern = pattern_of(tensor);
  std::size_t made = std::min(pattern.size(), bytes);
  device.upload(memory, pattern.data(), made);
  for (; made < bytes; made += std::min(made, bytes - made))
    device.copy(memory + made, memory, std::min(made, bytes - made));
}

const std::vector<std::byte>& FillData::pattern_of(const TaskTensor& tensor) {
  const bool offsets = tensor.fill == TaskTensor::Fill::Offsets;
  const auto count = offsets ? static_cast<std::size_t>(tensor.shape.elements()) : kPattern;
  std::vector<std::byte>& pattern = patterns_[{tensor.dtype, tensor.fill, tensor.bound}];
  const std::size_t known = pattern.size() / element_bytes(tensor.dtype);
  if (known >= count) return pattern;
  pattern.resize(count * element_bytes(tensor.dtype));
  for (std::size_t i = known; i < count; ++i) set(pattern, tensor, i);
  return pattern;
}

void FillData::set(std::vector<std::byte>& memory, const TaskTensor& tensor, std::size_t i) const {
  using Fill = TaskTensor::Fill;
  float value = normal_[i % kPattern];
  if (tensor.fill == Fill::Positive) value = 10 + std::fabs(value);
  if (tensor.fill == Fill::One) value = 1;
  switch (tensor.dtype) {
    case DType::F32:
      at<float>(memory, i) = value;
      break;
    case DType::F64:
      at<double>(memory, i) = value;
      break;
    case DType::Bf16:
      at<Bf16>(memory, i) = to_bf16(value);
      break;
    case DType::F8E4m3:
      at<F8E4m3>(memory, i) = to_f8e4m3(value);
      break;
    case DType::U8:
      at<std::uint8_t>(memory, i) = words_[i % kPattern] & 1;
      break;
    case DType::I32:
      at<std::int32_t>(memory, i) = static_cast<std::int32_t>(
          tensor.fill == Fill::Offsets ? static_cast<std::int64_t>(i) * tensor.bound
                                       : static_cast<std::int64_t>(words_[i % kPattern]) %
                                             std::max<std::int64_t>(1, tensor.bound));
      break;
  }
}

Operands::Operands(const ProfileTask& task, Arena& arena, FillData& data, int sets) {
  // As far apart as separate allocations would be.
  constexpr std::size_t kAlignment = 256;
  std::vector<std::size_t> offsets{0};
  for (const TaskTensor& tensor : task.tensors)
    offsets.push_back(offsets.back() + (tensor.bytes() + kAlignment) / kAlignment * kAlignment);
  const std::size_t stride = offsets.back();
  std::byte* memory = arena.reserve(stride * static_cast<std::size_t>(sets));
  for (std::size_t i = 0; i < task.tensors.size(); ++i)
    data.fill(arena.device(), task.tensors[i], memory + offsets[i]);
  for (int set = 0; set < sets; ++set) {
    std::byte* first = memory + stride * static_cast<std::size_t>(set);
    std::vector<TensorView> views;
    for (std::size_t i = 0; i < task.tensors.size(); ++i) {
      const TaskTensor& tensor = task.tensors[i];
      if (set > 0) arena.device().copy(first + offsets[i], memory + offsets[i], tensor.bytes());
      views.emplace_back(first + offsets[i], tensor.dtype, tensor.shape);
    }
    calls_.push_back(task.call(views));
  }
}

std::vector<OperatorCall> Operands::rotated(std::size_t count) const {
  std::vector<OperatorCall> calls;
  for (std::size_t i = 0; i < count; ++i) calls.push_back(calls_[i % calls_.size()]);
  return calls;
}

}  // namespace rehearse
