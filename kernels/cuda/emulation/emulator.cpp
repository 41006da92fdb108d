#include "kernels/cuda/emulation/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "plan/ensure.h"

namespace rehearse {

EmulatedDim emulated_thread_index, emulated_block_index, emulated_block_size, emulated_grid_size;

namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

enum class FiberState { Fresh, Ready, AtBlockBarrier, AtWarpStep, Done };

struct PendingCopy {
  void* to;
  const void* from;
  std::size_t bytes;
};

struct Fiber {
  ucontext_t start;
  jmp_buf point;
  FiberState state = FiberState::Done;
  EmulatedDim index;
  void* operand = nullptr;
  std::vector<std::vector<PendingCopy>> copies;  ///< groups; the last one is open
  std::unique_ptr<char[]> stack;
};

/// The one block that runs. Fibers and their stacks are kept from block to block.
struct Emulator {
  std::vector<std::unique_ptr<Fiber>> fibers;
  int threads = 0;
  int current = 0;
  jmp_buf scheduler;
  ucontext_t scheduler_context;
  const std::function<void()>* kernel = nullptr;
  std::unique_ptr<std::byte[]> shared;
  std::byte* shared_start = nullptr;
};

Emulator& emulator() {
  static Emulator one;
  return one;
}

Fiber& fiber(int index) { return *emulator().fibers[static_cast<std::size_t>(index)]; }

/// A fiber's first function. It may not return: there is nothing under it.
void run_fiber() {
  (*emulator().kernel)();
  fiber(emulator().current).state = FiberState::Done;
  _longjmp(emulator().scheduler, 1);
}

void suspend() {
  if (_setjmp(fiber(emulator().current).point) == 0) _longjmp(emulator().scheduler, 1);
}

/// Runs a fiber until it waits or ends. setjmp is used to switch because swapcontext enters the
/// kernel twice a switch.
void resume(int index) {
  Emulator& self = emulator();
  self.current = index;
  Fiber& next = fiber(index);
  emulated_thread_index = next.index;
  const bool fresh = next.state == FiberState::Fresh;
  next.state = FiberState::Ready;
  if (_setjmp(self.scheduler) == 0) {
    if (fresh) setcontext(&next.start);
    _longjmp(next.point, 1);
  }
}

void prepare_fibers(const EmulatedDim& block) {
  Emulator& self = emulator();
  self.threads = static_cast<int>(block.x * block.y * block.z);
  while (self.fibers.size() < static_cast<std::size_t>(self.threads)) {
    self.fibers.push_back(std::make_unique<Fiber>());
    self.fibers.back()->stack = std::make_unique<char[]>(kStackBytes);
  }
  for (int i = 0; i < self.threads; ++i) {
    Fiber& one = fiber(i);
    const auto linear = static_cast<unsigned>(i);
    one.index = {linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)};
    one.state = FiberState::Fresh;
    one.copies.assign(1, {});
    getcontext(&one.start);
    one.start.uc_stack.ss_sp = one.stack.get();
    one.start.uc_stack.ss_size = kStackBytes;
    one.start.uc_link = &self.scheduler_context;
    makecontext(&one.start, run_fiber, 0);
  }
}

/// Lets the fibers behind a barrier go on when all that still run have come to it.
bool release_block_barrier() {
  bool any = false;
  for (int i = 0; i < emulator().threads; ++i) {
    if (fiber(i).state == FiberState::Done) continue;
    if (fiber(i).state != FiberState::AtBlockBarrier) return false;
    any = true;
  }
  for (int i = 0; i < emulator().threads; ++i)
    if (fiber(i).state == FiberState::AtBlockBarrier) fiber(i).state = FiberState::Ready;
  return any;
}

bool can_run(const Fiber& one) {
  return one.state == FiberState::Fresh || one.state == FiberState::Ready;
}

void run_block(bool falling) {
  const int threads = emulator().threads;
  while (true) {
    bool ran = false;
    for (int i = 0; i < threads; ++i) {
      const int index = falling ? threads - 1 - i : i;
      if (!can_run(fiber(index))) continue;
      resume(index);
      ran = true;
    }
    if (ran || release_block_barrier()) continue;
    const bool finished =
        std::all_of(emulator().fibers.begin(), emulator().fibers.begin() + threads,
                    [](const auto& one) { return one->state == FiberState::Done; });
    ensure(finished, "threads of an emulated block wait for each other for ever");
    return;
  }
}

/// Shared memory holds NaNs where nothing was written, as a real block's may hold anything.
void prepare_shared_memory(std::size_t bytes) {
  Emulator& self = emulator();
  constexpr std::size_t kAlignment = 1024;
  self.shared = std::make_unique<std::byte[]>(bytes + kAlignment);
  void* start = self.shared.get();
  std::size_t space = bytes + kAlignment;
  self.shared_start = static_cast<std::byte*>(std::align(kAlignment, bytes, start, space));
}

}  // namespace

void emulated_access(const void* address, std::size_t bytes) {
  ensure(reinterpret_cast<std::uintptr_t>(address) % bytes == 0,
         "an emulated thread reads or writes across the bounds of its accesses");
}

void emulate(const EmulatedGrid& grid, const std::function<void()>& kernel) {
  constexpr unsigned kMostBlocks = 65535, kMostThreads = 1024;
  constexpr std::size_t kMostShared = 227 * 1024;
  ensure(grid.grid.x < 1u << 31 && grid.grid.y <= kMostBlocks && grid.grid.z <= kMostBlocks,
         "a grid has more blocks than a GPU launches");
  ensure(grid.block.x * grid.block.y * grid.block.z <= kMostThreads,
         "a block has more threads than a GPU launches");
  ensure(grid.shared_bytes <= kMostShared, "a block asks for more shared memory than a GPU has");
  Emulator& self = emulator();
  self.kernel = &kernel;
  prepare_shared_memory(grid.shared_bytes);
  emulated_block_size = grid.block;
  emulated_grid_size = grid.grid;
  for (unsigned z = 0; z < grid.grid.z; ++z)
    for (unsigned y = 0; y < grid.grid.y; ++y)
      for (unsigned x = 0; x < grid.grid.x; ++x) {
        emulated_block_index = {x, y, z};
        std::fill_n(self.shared_start, grid.shared_bytes, std::byte{0xff});
        prepare_fibers(grid.block);
        run_block((x + y + z) % 2 == 1);
      }
}

void* emulated_shared_memory() { return emulator().shared_start; }

void emulated_block_barrier() {
  fiber(emulator().current).state = FiberState::AtBlockBarrier;
  suspend();
}

void emulated_warp_step(void* operand, void (*combine)(const LaneOperands&)) {
  Emulator& self = emulator();
  Fiber& mine = fiber(self.current);
  mine.operand = operand;
  mine.state = FiberState::AtWarpStep;
  const int first = self.current / kWarpLanes * kWarpLanes;
  const int last = std::min(first + kWarpLanes, self.threads);
  LaneOperands lanes{};
  bool complete = true;
  for (int i = first; i < last; ++i) {
    if (fiber(i).state == FiberState::AtWarpStep)
      lanes[static_cast<std::size_t>(i - first)] = fiber(i).operand;
    else
      complete = complete && fiber(i).state == FiberState::Done;
  }
  if (!complete) return suspend();
  combine(lanes);
  for (int i = first; i < last; ++i)
    if (fiber(i).state == FiberState::AtWarpStep) fiber(i).state = FiberState::Ready;
}

void emulated_copy(void* to, const void* from, std::size_t bytes) {
  emulated_access(to, bytes);
  if (from != nullptr) emulated_access(from, bytes);
  std::memset(to, 0xff, bytes);
  fiber(emulator().current).copies.back().push_back({to, from, bytes});
}

void emulated_copy_commit() { fiber(emulator().current).copies.emplace_back(); }

void emulated_copy_wait(int pending) {
  auto& groups = fiber(emulator().current).copies;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const PendingCopy& copy : groups.front()) {
      if (copy.from == nullptr)
        std::memset(copy.to, 0, copy.bytes);
      else
        std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace rehearse
