#pragma once
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch_context.h"

namespace rehearse {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
};

/// What a GPU launches: CUDA C++ Programming Guide, table "Technical Specifications per Compute
/// Capability", the same for all from 3.0 on.
inline void require_launchable(const dim3& grid) {
  constexpr unsigned kMostAlongX = 0x7fffffffu, kMost = 65535;
  if (grid.x <= kMostAlongX && grid.y <= kMost && grid.z <= kMost) return;
  throw OperatorError("tensors are too large for their kernel: a grid of " +
                      std::to_string(grid.x) + " × " + std::to_string(grid.y) + " × " +
                      std::to_string(grid.z) + " blocks is more than a GPU launches");
}

/// Starts a kernel on the context's stream. An empty grid starts nothing.
template <typename... Parameters, typename... Arguments>
void launch(LaunchContext& context, const LaunchShape& shape, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  require_launchable(shape.grid);
#ifdef REHEARSE_CUDA_EMULATION
  (void)context;
  emulate({shape.grid, shape.block, shape.shared_bytes},
          [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  context.allow_shared_memory(reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        // Its status is the last error too, which check_launch reads.
        (void)cudaLaunchKernel(reinterpret_cast<const void*>(kernel), shape.grid, shape.block,
                               pointers, shape.shared_bytes,
                               static_cast<cudaStream_t>(context.stream));
      },
      values);
  context.check_launch();
#endif
}

/// A size that kernels count with 32 bits.
inline int int_size(std::int64_t size) {
  if (size > std::numeric_limits<int>::max())
    throw OperatorError("tensors are too large for their kernel: it counts to 2^31, not to " +
                        std::to_string(size));
  return static_cast<int>(size);
}

inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>(int_size((count + each - 1) / each));
}

}  // namespace rehearse
