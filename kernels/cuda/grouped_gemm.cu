// Grouped matrix products (the experts' linear layers). In bf16 on the tensor cores with tiles of
// 128 × 128 × 32 and three stages of copies ahead; elsewhere a plain tiled kernel. Bound by the
// tensor cores from a few hundred rows an expert on, below that by reading the weights.
#include <algorithm>

#include "kernels/cuda/reductions.cuh"
#include "kernels/cuda/tiles.cuh"

namespace rehearse {
namespace {

constexpr int kTile = 128;  // rows and columns of the result a block computes
constexpr int kDepth = 32;  // of k, a stage
constexpr int kStages = 3;
constexpr int kWarps = 8;  // 2 by 4 over the tile: 64 × 32 a warp
constexpr int kThreads = kWarps * 32;
constexpr int kRowTiles = 4;     // of 16 rows a warp
constexpr int kColumnTiles = 4;  // of 8 columns a warp

struct GroupedArguments {
  const void *a, *b;
  void* out;
  const std::int32_t* offsets;
  int experts, rows;
  int n, k;  // columns of the result; depth (weight gradient: m = rows of a result, from `m`)
  int m;
  bool accumulate;
};

/// What one block computes: a tile of one expert's product.
struct GroupedTile {
  int expert, first_row, row_end;  // rows of the result
  int depth_begin, depth_end;      // of k
};

/// Forward and input gradient: tiles of rows are counted expert by expert; the launch has at least
/// as many as there are, and a block beyond the last one does nothing.
__device__ GroupedTile row_tile(const GroupedArguments& call, int index) {
  for (int e = 0; e < call.experts; ++e) {
    const int begin = call.offsets[e], end = call.offsets[e + 1];
    const int tiles = (end - begin + kTile - 1) / kTile;
    if (index < tiles) return {e, begin + index * kTile, end, 0, call.k};
    index -= tiles;
  }
  return {-1, 0, 0, 0, 0};
}

template <GroupedProduct kProduct>
__device__ GroupedTile tile_of(const GroupedArguments& call) {
  if constexpr (kProduct == GroupedProduct::WeightGradient) {
    const int e = static_cast<int>(blockIdx.z);
    return {e, static_cast<int>(blockIdx.y) * kTile, call.m, call.offsets[e], call.offsets[e + 1]};
  } else {
    return row_tile(call, static_cast<int>(blockIdx.y));
  }
}

/// Stage of an operand stored (rows, k): 128 rows of 32.
__device__ __forceinline__ void load_deep(Bf16* stage, const Bf16* data, std::int64_t stride,
                                          int rows, int first_row, int depth, int depth_end) {
  // Chunks beyond the depth become zeros; the depth is a multiple of 8 here.
  constexpr int kChunks = kDepth / 8;
  for (int index = static_cast<int>(threadIdx.x); index < kTile * kChunks; index += kThreads) {
    const int row = index / kChunks, chunk = index % kChunks;
    const bool valid = first_row + row < rows && depth + chunk * 8 < depth_end;
    const std::int64_t from = valid ? (first_row + row) * stride + depth + chunk * 8 : 0;
    copy_async_16(stage + tile_offset<kDepth>(row, chunk), data + from, valid);
  }
}

/// Stage of an operand stored (k, columns): 32 rows of 128.
__device__ __forceinline__ void load_wide(Bf16* stage, const Bf16* data, std::int64_t stride,
                                          int columns, int first_column, int depth, int depth_end) {
  constexpr int kChunks = kTile / 8;
  for (int index = static_cast<int>(threadIdx.x); index < kDepth * kChunks; index += kThreads) {
    const int row = index / kChunks, chunk = index % kChunks;
    const bool valid = depth + row < depth_end && first_column + chunk * 8 < columns;
    const std::int64_t from = valid ? (depth + row) * stride + first_column + chunk * 8 : 0;
    copy_async_16(stage + tile_offset<kTile>(row, chunk), data + from, valid);
  }
}

template <GroupedProduct kProduct>
__device__ __forceinline__ void load_stage(Bf16* stage, const GroupedArguments& call,
                                           const GroupedTile& tile, int first_column, int depth) {
  const Bf16* a = static_cast<const Bf16*>(call.a);
  const Bf16* b = static_cast<const Bf16*>(call.b);
  Bf16* right = stage + kTile * kDepth;
  const std::int64_t matrix = static_cast<std::int64_t>(tile.expert) * call.n * call.k;
  if constexpr (kProduct == GroupedProduct::Forward) {
    load_deep(stage, a, call.k, tile.row_end, tile.first_row, depth, tile.depth_end);
    load_deep(right, b + matrix, call.k, call.n, first_column, depth, tile.depth_end);
  } else if constexpr (kProduct == GroupedProduct::InputGradient) {
    load_deep(stage, a, call.k, tile.row_end, tile.first_row, depth, tile.depth_end);
    load_wide(right, b + matrix, call.n, call.n, first_column, depth, tile.depth_end);
  } else {
    load_wide(stage, a, call.m, call.m, tile.first_row, depth, tile.depth_end);
    load_wide(right, b, call.n, call.n, first_column, depth, tile.depth_end);
  }
}

using Accumulators = float[kRowTiles][kColumnTiles][4];

template <GroupedProduct kProduct>
__device__ __forceinline__ void multiply_stage(Accumulators& sum, const Bf16* stage, int warp_row,
                                               int warp_column) {
  const Bf16* right = stage + kTile * kDepth;
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    std::uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      if constexpr (kProduct == GroupedProduct::WeightGradient)
        load_left_transposed<kTile>(a[r], stage, warp_row + 16 * r, step);
      else
        load_left<kDepth>(a[r], stage, warp_row + 16 * r, step);
    }
#pragma unroll
    for (int c = 0; c < kColumnTiles / 2; ++c) {
      std::uint32_t b[4];
      if constexpr (kProduct == GroupedProduct::Forward)
        load_right<kDepth>(b, right, warp_column + 16 * c, step);
      else
        load_right_transposed<kTile>(b, right, 16 * step, warp_column / 16 + c);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        mma_bf16(sum[r][2 * c], a[r], b[0], b[1]);
        mma_bf16(sum[r][2 * c + 1], a[r], b[2], b[3]);
      }
    }
  }
}

template <GroupedProduct kProduct>
__device__ __forceinline__ void store_tile(const GroupedArguments& call, const GroupedTile& tile,
                                           const Accumulators& sum, int first_row,
                                           int first_column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = first_row + 16 * r + lane / 4 + 8 * half;
      if (row >= tile.row_end) continue;
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        const int column = first_column + 8 * c + 2 * (lane % 4);
        if (column >= call.n) continue;  // n is a multiple of 8: pairs are whole
        const float low = sum[r][c][2 * half], high = sum[r][c][2 * half + 1];
        if constexpr (kProduct == GroupedProduct::WeightGradient) {
          float* to = static_cast<float*>(call.out) +
                      (static_cast<std::int64_t>(tile.expert) * call.m + row) * call.n + column;
          to[0] = call.accumulate ? to[0] + low : low;
          to[1] = call.accumulate ? to[1] + high : high;
        } else {
          store_pair(static_cast<Bf16*>(call.out) + row * call.n + column, low, high);
        }
      }
    }
}

template <GroupedProduct kProduct>
__global__ void __launch_bounds__(kThreads) grouped_kernel(GroupedArguments call) {
  const GroupedTile tile = tile_of<kProduct>(call);
  if (tile.expert < 0) return;
  const int first_column = static_cast<int>(blockIdx.x) * kTile;
  Bf16* stages = static_cast<Bf16*>(dynamic_shared_memory());
  constexpr int kStageElements = 2 * kTile * kDepth;
  const int steps = (tile.depth_end - tile.depth_begin + kDepth - 1) / kDepth;
  const auto load = [&](int step) {
    if (step < steps)
      load_stage<kProduct>(stages + step % kStages * kStageElements, call, tile, first_column,
                           tile.depth_begin + step * kDepth);
    copy_async_commit();  // empty groups keep the count of those under way
  };
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  Accumulators sum = {};
  for (int step = 0; step < kStages - 1; ++step) load(step);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this stage is here, and nobody reads the one before any more
    load(step + kStages - 1);
    multiply_stage<kProduct>(sum, stages + step % kStages * kStageElements, warp_row, warp_column);
  }
  copy_async_wait<0>();
  store_tile<kProduct>(call, tile, sum, tile.first_row + warp_row, first_column + warp_column);
}

/// Any type and alignment: a thread an element of the result.
template <typename T, GroupedProduct kProduct>
__global__ void plain_grouped_kernel(GroupedArguments call) {
  // Rows along the grid's x, which takes more than 65,535 blocks.
  const std::int64_t column = blockIdx.y * blockDim.x + threadIdx.x;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (column >= call.n) return;
  const T* a = static_cast<const T*>(call.a);
  const T* b = static_cast<const T*>(call.b);
  float sum = 0;
  if constexpr (kProduct == GroupedProduct::WeightGradient) {
    if (row >= call.m) return;
    const std::int64_t expert = blockIdx.z;
    for (std::int64_t i = call.offsets[expert]; i < call.offsets[expert + 1]; ++i)
      sum += device_float(a[i * call.m + row]) * device_float(b[i * call.n + column]);
    float& to = static_cast<float*>(call.out)[(expert * call.m + row) * call.n + column];
    to = call.accumulate ? to + sum : sum;
  } else {
    if (row >= call.rows) return;
    std::int64_t expert = 0;
    while (call.offsets[expert + 1] <= row) ++expert;
    const T* matrix = b + expert * call.n * call.k;
    for (std::int64_t i = 0; i < call.k; ++i)
      sum += device_float(a[row * call.k + i]) * device_float(kProduct == GroupedProduct::Forward
                                                                  ? matrix[column * call.k + i]
                                                                  : matrix[i * call.n + column]);
    device_store(static_cast<T*>(call.out)[row * call.n + column], sum);
  }
}

GroupedArguments grouped_arguments(const GroupedGemm& call) {
  GroupedArguments arguments{};
  arguments.a = call.a.data;
  arguments.b = call.b.data;
  arguments.out = call.out.data;
  arguments.offsets = device_elements<std::int32_t>(call.offsets);
  arguments.experts = int_size(call.offsets.size(0) - 1);
  arguments.rows = int_size(call.a.size(0));
  arguments.accumulate = call.accumulate;
  const bool is_weight = call.product == GroupedProduct::WeightGradient;
  arguments.n = int_size(call.out.size(is_weight ? 2 : 1));
  arguments.k = int_size(is_weight ? 0 : call.a.size(1));
  arguments.m = int_size(is_weight ? call.a.size(1) : 0);
  return arguments;
}

/// 16-byte chunks along every row: widths are multiples of 8 and addresses of 16.
bool fits_tensor_cores(const GroupedGemm& call, const GroupedArguments& arguments) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return call.a.dtype == DType::Bf16 && arguments.n % 8 == 0 && arguments.k % 8 == 0 &&
         arguments.m % 8 == 0 && aligned(call.a.data) && aligned(call.b.data) &&
         aligned(call.out.data);
}

template <GroupedProduct kProduct>
void launch_product(const GroupedGemm& call, LaunchContext& context) {
  const GroupedArguments arguments = grouped_arguments(call);
  constexpr bool kIsWeight = kProduct == GroupedProduct::WeightGradient;
  const auto experts = static_cast<unsigned>(arguments.experts);
  if (fits_tensor_cores(call, arguments)) {
    // Every expert may leave one tile partly filled.
    const unsigned row_tiles = kIsWeight ? blocks_for(arguments.m, kTile)
                                         : static_cast<unsigned>(arguments.rows / kTile) + experts;
    return launch(context,
                  {.grid = {blocks_for(arguments.n, kTile), row_tiles, kIsWeight ? experts : 1},
                   .block = {kThreads},
                   .shared_bytes = kStages * 2 * kTile * kDepth * sizeof(Bf16)},
                  grouped_kernel<kProduct>, arguments);
  }
  const LaunchShape shape{.grid = {blocks_for(kIsWeight ? arguments.m : arguments.rows, 8),
                                   blocks_for(arguments.n, 32), kIsWeight ? experts : 1},
                          .block = {32, 8}};
  with_device_type("grouped_gemm", call.a.dtype, [&](auto tag) {
    launch(context, shape, plain_grouped_kernel<decltype(tag), kProduct>, arguments);
  });
}

}  // namespace

void compute(const GroupedGemm& call, LaunchContext& context) {
  switch (call.product) {
    case GroupedProduct::Forward:
      return launch_product<GroupedProduct::Forward>(call, context);
    case GroupedProduct::InputGradient:
      return launch_product<GroupedProduct::InputGradient>(call, context);
    case GroupedProduct::WeightGradient:
      return launch_product<GroupedProduct::WeightGradient>(call, context);
  }
}

}  // namespace rehearse
