#include "kernels/cuda/emulation/emulated_device.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/launch_context.h"
#include "kernels/ops/cpu/cpu_operators.h"

namespace rehearse {
namespace {

class EmulatedContext final : public LaunchContext {
 public:
  EmulatedContext() {
    multiprocessors = 3;  // few, so that kernels with a persistent grid take several rounds
    max_shared_bytes = 227 * 1024;
  }
  void* workspace(std::size_t bytes) override {
    workspace_.assign(bytes / sizeof(double) + 32, std::bit_cast<double>(~0ull));  // poison
    return workspace_.data();
  }
  void allow_shared_memory(const void*, std::size_t) override {}
  void check_launch(const std::source_location&) override {}

 private:
  std::vector<double> workspace_;
};

class EmulatedDevice final : public ComputeDevice {
 public:
  std::string description() const override { return "emulated CUDA kernels on the CPU"; }
  void* allocate(std::size_t bytes) override {
    void* memory = std::aligned_alloc(256, (bytes + 256) / 256 * 256);
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
  void execute(const OperatorCall& call) override {
    std::visit(
        [this](const auto& one) {
          if constexpr (std::is_same_v<std::decay_t<decltype(one)>, Gemm>)
            multiply(one);
          else
            compute(one, context_);
        },
        call);
  }

  /// The bare product on the CPU, its epilogue by the kernel.
  void multiply(const Gemm& call) {
    Gemm bare = call;
    bare.epilogue = Epilogue::None;
    bare.bias = {};  // the epilogue's business
    compute(bare, team_);
    if (call.epilogue != Epilogue::None) apply_epilogue(call, context_);
  }

  ThreadTeam team_{1};
  EmulatedContext context_;
};

}  // namespace

std::unique_ptr<ComputeDevice> emulated_device() { return std::make_unique<EmulatedDevice>(); }

}  // namespace rehearse
