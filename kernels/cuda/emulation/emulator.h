#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace rehearse {

// Runs CUDA kernels on the CPU, for machines without a GPU: each thread of a block is a fiber,
// barriers and warp-wide instructions are places where fibers wait for each other. One block
// runs at a time. Fibers are resumed in rising order in even blocks and in falling order in odd
// ones, and shared memory starts poisoned, so that a missing barrier shows. It checks arithmetic,
// indices and layouts; it says nothing about speed or about the memory model.

struct EmulatedDim {
  unsigned x = 1, y = 1, z = 1;
};

struct EmulatedGrid {
  EmulatedDim grid, block;
  std::size_t shared_bytes = 0;
};

/// Runs `kernel` once a thread of the grid. Aborts where threads wait for each other for ever, and
/// where no GPU would launch the grid (CUDA Programming Guide, "Compute Capabilities": 1,024
/// threads a block, 65,535 blocks along y and z, 227 KiB of shared memory on 9.0).
void emulate(const EmulatedGrid& grid, const std::function<void()>& kernel);

/// Accesses of a GPU's thread start at a multiple of their size; others end the kernel there.
/// Aborts where this one does not.
void emulated_access(const void* address, std::size_t bytes);

/// Where the running fiber is; valid inside `emulate` only.
extern EmulatedDim emulated_thread_index, emulated_block_index, emulated_block_size,
    emulated_grid_size;

void* emulated_shared_memory();
/// Waits for all threads of the block that still run.
void emulated_block_barrier();

constexpr int kWarpLanes = 32;
using LaneOperands = std::array<void*, kWarpLanes>;
/// Waits for all running lanes of the warp; the last one to come calls `combine` with every
/// lane's operand (null: the lane has ended).
void emulated_warp_step(void* operand, void (*combine)(const LaneOperands&));

/// An asynchronous copy of 4, 8 or 16 bytes (`from` null: zeros) of the running thread. Its
/// destination is poisoned at once and filled only when the thread waits, so that reading too
/// early, and copying over what others still read, show.
void emulated_copy(void* to, const void* from, std::size_t bytes);
void emulated_copy_commit();
/// Completes all groups of the running thread but the latest `pending`.
void emulated_copy_wait(int pending);

}  // namespace rehearse
