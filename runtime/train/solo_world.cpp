#include "runtime/train/solo_world.h"

#include <algorithm>

#include "plan/ensure.h"

namespace rehearse {
namespace {

std::size_t bytes_of(const ConstTensorView& tensor) {
  return static_cast<std::size_t>(tensor.elements()) * element_bytes(tensor.dtype);
}

/// Numbers between −1 and 1, evenly spread.
template <typename T>
std::vector<T> made_up(std::int64_t count) {
  std::vector<T> numbers(static_cast<std::size_t>(count));
  std::uint32_t state = 1;
  for (T& number : numbers) {
    state = state * 1664525u + 1013904223u;  // Knuth's constants, as in Numerical Recipes
    const float value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    if constexpr (std::is_same_v<T, Bf16>)
      number = to_bf16(value);
    else
      number = value;
  }
  return numbers;
}

class SoloCommunicator final : public Communicator {
 public:
  SoloCommunicator(int rank, int size, ComputeDevice& device, TrafficCount& count)
      : Communicator(count), rank_(rank), size_(size), device_(device) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override {}

 private:
  Transfer begin_all_reduce(const TensorView& tensor, Reduction) override {
    pass_by_others(tensor.data, bytes_of(tensor));
    return {};
  }
  Transfer begin_all_gather(const ConstTensorView& mine, const TensorView& all) override {
    const std::size_t part = bytes_of(mine);
    auto* to = static_cast<std::byte*>(all.data);
    for (int rank = 0; rank < size_; ++rank, to += part)
      if (to != mine.data) device_.copy(to, mine.data, part);
    return {};
  }
  Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    const std::size_t part = bytes_of(mine);
    const auto* from = static_cast<const std::byte*>(all.data);
    device_.copy(mine.data, from + part * static_cast<std::size_t>(rank_), part);
    return {};
  }
  Transfer begin_all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    device_.copy(all.data, mine.data, bytes_of(mine));
    return {};
  }
  Transfer begin_broadcast(const TensorView&, int) override { return {}; }
  Transfer begin_send(const ConstTensorView& tensor, int, int) override {
    device_.copy(mailbox(bytes_of(tensor)), tensor.data, bytes_of(tensor));
    return {};
  }
  Transfer begin_receive(const TensorView& tensor, int, int) override {
    if (tensor.dtype == DType::F32) {
      const auto numbers = made_up<float>(tensor.elements());
      device_.upload(tensor.data, numbers.data(), bytes_of(tensor));
    } else {
      ensure(tensor.dtype == DType::Bf16, "stages send each other fp32 or bf16");
      const auto numbers = made_up<Bf16>(tensor.elements());
      device_.upload(tensor.data, numbers.data(), bytes_of(tensor));
    }
    return {};
  }

  /// A reduction moves what a rank gives and what it gets from others through memory that ranks
  /// share: the operator after it finds less of its weights in the caches. As many bytes are moved
  /// here, and come back unchanged.
  void pass_by_others(void* data, std::size_t bytes) {
    std::byte* given = mailbox(2 * bytes);
    std::byte* got = given + bytes;
    device_.copy(given, data, bytes);
    device_.copy(got, given, bytes);
    device_.copy(data, got, bytes);
  }

  std::byte* mailbox(std::size_t bytes) {
    if (mailbox_.bytes() < bytes) mailbox_ = DeviceBuffer(device_, bytes);
    return static_cast<std::byte*>(mailbox_.data());
  }

  int rank_, size_;
  ComputeDevice& device_;
  DeviceBuffer mailbox_;
};

class SoloWorld final : public World {
 public:
  SoloWorld(int rank, int size, ComputeDevice& device)
      : rank_(rank), size_(size), device_(device) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count,
                                      const std::vector<MessageLane>&) override {
    const auto place = std::find(ranks.begin(), ranks.end(), rank_);
    ensure(place != ranks.end(), "a rank makes the groups that it belongs to");
    if (ranks.size() == 1) return lone_communicator(count);
    return std::make_unique<SoloCommunicator>(static_cast<int>(place - ranks.begin()),
                                              static_cast<int>(ranks.size()), device_, count);
  }
  void abort(int) override {}

 private:
  int rank_, size_;
  ComputeDevice& device_;
};

}  // namespace

std::unique_ptr<World> solo_world(int rank, int size, ComputeDevice& device) {
  return std::make_unique<SoloWorld>(rank, size, device);
}

}  // namespace rehearse
