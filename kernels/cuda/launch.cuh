#pragma once
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

/// Starts a kernel on the context's stream. An empty grid starts nothing.
template <typename... Parameters, typename... Arguments>
void launch(LaunchContext& context, const LaunchShape& shape, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
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

inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace rehearse
