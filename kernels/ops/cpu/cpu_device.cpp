#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/ops/compute_device.h"
#include "kernels/ops/cpu/cpu_operators.h"

namespace rehearse {
namespace {

class CpuDevice final : public ComputeDevice {
 public:
  explicit CpuDevice(int threads) : team_(threads) {}

  std::string description() const override {
    return "cpu, " + std::to_string(team_.threads()) +
           (team_.threads() == 1 ? " thread, " : " threads, ") + blas_description();
  }
  void* allocate(std::size_t bytes) override {
    // aligned_alloc wants whole multiples of the alignment, and a buffer of nothing is valid.
    const std::size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
    void* memory = std::aligned_alloc(kAlignment, rounded);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }
  void release(void* memory) noexcept override { std::free(memory); }
  void upload(void* to_device, const void* from_host, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to_device, from_host, bytes);
  }
  void download(void* to_host, const void* from_device, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to_host, from_device, bytes);
  }
  void fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) override {
    if (bytes > 0) std::memset(memory, value, bytes);
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void synchronize() override {}

 private:
  static constexpr std::size_t kAlignment = 256;

  void execute(const OperatorCall& call) override {
    std::visit([this](const auto& one) { compute(one, team_); }, call);
  }

  ThreadTeam team_;
};

}  // namespace

std::unique_ptr<ComputeDevice> cpu_device(int threads) {
  return std::make_unique<CpuDevice>(threads);
}

}  // namespace rehearse
