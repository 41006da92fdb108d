// RMSNorm and LayerNorm with a fused residual. Bound by memory: forward reads x (and the residual)
// and writes out (and the sum); backward reads x, d_out (and d_residual) and writes d_x. Rows stay
// in registers between their reading and their writing, a warp or more a row; those too long for
// that are read again out of L1 (norm_long.cu).
#include "kernels/cuda/norm_arguments.cuh"

namespace rehearse {
namespace {

template <int N, typename T, typename W>
__global__ void __launch_bounds__(kLongThreads) norm_forward_kernel(NormForwardArguments call) {
  __shared__ float scratch[32];
  const std::int64_t row = thread_row();
  const bool exists = row < call.rows, centered = call.mean != nullptr;
  const int step = static_cast<int>(blockDim.x) * N, first = static_cast<int>(threadIdx.x) * N;
  const auto is_mine = [&](int p) { return exists && first + p * step < call.h; };
  Pack<T, N> x[kRowPacks];
#pragma unroll
  for (int p = 0; p < kRowPacks; ++p)
    if (is_mine(p))
      x[p] = pack_at<N>(static_cast<const T*>(call.x) + row * call.h + first + p * step);
  if (call.residual != nullptr) {
    Pack<T, N> beside[kRowPacks];
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p)
      if (is_mine(p))
        beside[p] =
            pack_at<N>(static_cast<const T*>(call.residual) + row * call.h + first + p * step);
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p) {
      if (!is_mine(p)) continue;
      float a[N], b[N];
      unpack(a, x[p]);
      unpack(b, beside[p]);
#pragma unroll
      for (int i = 0; i < N; ++i) a[i] += b[i];
      x[p] = packed<N, T>(a);  // what is stored is normalised, rounding and all
      put_pack(static_cast<T*>(call.sum) + row * call.h + first + p * step, x[p]);
    }
  }
  const auto sum_over = [&](const auto& term) {
    float sum = 0;
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p) {
      if (!is_mine(p)) continue;
      float a[N];
      unpack(a, x[p]);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += term(a[i]);
    }
    return row_reduce(sum, Plus{}, 0.0f, scratch) / static_cast<float>(call.h);
  };
  const float mean = centered ? sum_over([](float a) { return a; }) : 0.0f;
  const float variance = sum_over([&](float a) { return (a - mean) * (a - mean); });
  const float inverse = rsqrtf(variance + call.epsilon);
#pragma unroll
  for (int p = 0; p < kRowPacks; ++p) {
    if (!is_mine(p)) continue;
    const int j = first + p * step;
    float a[N], w[N], b[N] = {};
    unpack(a, x[p]);
    load_pack<N>(w, static_cast<const W*>(call.weight) + j);
    if (centered) load_pack<N>(b, static_cast<const W*>(call.bias) + j);
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] = (a[i] - mean) * inverse * w[i] + b[i];
    store_pack<N>(static_cast<T*>(call.out) + row * call.h + j, a);
  }
  if (exists && threadIdx.x == 0) {
    call.inverse[row] = inverse;
    if (centered) call.mean[row] = mean;
  }
}

constexpr int kHeldPacks = 2;  // backward, of each tensor: the gradients' sums need registers too

/// What the threads of a row hold of it.
template <int N, typename T>
struct BackwardRow {
  Pack<T, N> x[kHeldPacks], d_out[kHeldPacks], d_residual[kHeldPacks];
};

template <int N, typename T>
__device__ __forceinline__ void load_row(BackwardRow<N, T>& held, const NormBackwardArguments& call,
                                         std::int64_t row) {
  const int step = static_cast<int>(blockDim.x) * N, first = static_cast<int>(threadIdx.x) * N;
#pragma unroll
  for (int p = 0; p < kHeldPacks; ++p) {
    const std::int64_t at = row * call.h + first + p * step;
    if (row >= call.rows || first + p * step >= call.h) continue;
    held.x[p] = pack_at<N>(static_cast<const T*>(call.x) + at);
    held.d_out[p] = pack_at<N>(static_cast<const T*>(call.d_out) + at);
    if (call.d_residual != nullptr)
      held.d_residual[p] = pack_at<N>(static_cast<const T*>(call.d_residual) + at);
  }
}

/// A block's rows along y each add up every (gridDim.x · blockDim.y)-th row's share of the
/// parameters' gradients, a column in one thread's registers; their sum is the block's.
template <int N>
__device__ __forceinline__ void put_shares(const float (&sums)[kHeldPacks][N], int h,
                                           float* share) {
  const int step = static_cast<int>(blockDim.x) * N, first = static_cast<int>(threadIdx.x) * N;
  float* rows = static_cast<float*>(dynamic_shared_memory());
  __syncthreads();  // whoever read the shared rows before is done
#pragma unroll
  for (int p = 0; p < kHeldPacks; ++p)
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (first + p * step < h)
        rows[static_cast<int>(threadIdx.y) * h + first + p * step + i] = sums[p][i];
  __syncthreads();
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int j = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); j < h; j += threads) {
    float sum = 0;
    for (unsigned y = 0; y < blockDim.y; ++y) sum += rows[static_cast<int>(y) * h + j];
    share[j] = sum;
  }
}

template <int N, typename T, typename W, bool kCentered>
__global__ void __launch_bounds__(kLongThreads) norm_backward_kernel(NormBackwardArguments call) {
  __shared__ float scratch[32];
  const int step = static_cast<int>(blockDim.x) * N, first = static_cast<int>(threadIdx.x) * N;
  const float length = static_cast<float>(call.h);
  float d_weight[kHeldPacks][N] = {}, d_bias[kCentered ? kHeldPacks : 1][N] = {};
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
  // All rows of a block take as many rounds: row_reduce waits for all of them.
  for (std::int64_t round = static_cast<std::int64_t>(blockIdx.x) * blockDim.y; round < call.rows;
       round += stride) {
    const std::int64_t row = round + threadIdx.y;
    const bool exists = row < call.rows;
    const auto is_mine = [&](int p) { return exists && first + p * step < call.h; };
    BackwardRow<N, T> held;
    load_row<N, T>(held, call, row);
    const float inverse = exists ? call.inverse[row] : 0.0f;
    const float mean = kCentered && exists ? call.mean[row] : 0.0f;
    float gradient_mean = 0, projection = 0;
#pragma unroll
    for (int p = 0; p < kHeldPacks; ++p) {
      if (!is_mine(p)) continue;
      float a[N], g[N], w[N];
      unpack(a, held.x[p]);
      unpack(g, held.d_out[p]);
      load_pack<N>(w, static_cast<const W*>(call.weight) + first + p * step);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float normal = (a[i] - mean) * inverse;
        d_weight[p][i] += g[i] * normal;
        if constexpr (kCentered) {
          d_bias[p][i] += g[i];
          gradient_mean += g[i] * w[i];
        }
        projection += g[i] * w[i] * normal;
      }
    }
    projection = row_reduce(projection, Plus{}, 0.0f, scratch) / length;
    if constexpr (kCentered)
      gradient_mean = row_reduce(gradient_mean, Plus{}, 0.0f, scratch) / length;
#pragma unroll
    for (int p = 0; p < kHeldPacks; ++p) {
      if (!is_mine(p)) continue;
      float a[N], g[N], w[N], beside[N] = {};
      unpack(a, held.x[p]);
      unpack(g, held.d_out[p]);
      load_pack<N>(w, static_cast<const W*>(call.weight) + first + p * step);
      if (call.d_residual != nullptr) unpack(beside, held.d_residual[p]);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float normal = (a[i] - mean) * inverse;
        a[i] = inverse * (g[i] * w[i] - gradient_mean - normal * projection) + beside[i];
      }
      store_pack<N>(static_cast<T*>(call.d_x) + row * call.h + first + p * step, a);
    }
  }
  float* share = call.shares + static_cast<std::int64_t>(blockIdx.x) * 2 * call.h;
  put_shares<N>(d_weight, call.h, share);
  if constexpr (kCentered) put_shares<N>(d_bias, call.h, share + call.h);
}

/// Whether the threads of a block hold a row in their registers.
bool is_held(std::int64_t packs, int packs_a_thread) {
  return packs <= std::int64_t{kLongThreads} * packs_a_thread;
}

struct RowShares;  // names this file's add_shares_kernel

}  // namespace

void compute(const NormForward& call, LaunchContext& context) {
  const NormForwardArguments arguments = norm_arguments(call);
  const int pack = norm_pack(call);
  const std::int64_t packs = arguments.h / pack;
  if (!is_held(packs, kRowPacks)) return norm_forward_long(call, context);
  const dim3 block = row_block(packs, kRowPacks, kLongThreads);
  with_norm_types("norm_forward", call.x.dtype, call.weight.dtype, pack,
                  [&](auto n, auto t, auto w) {
                    launch(context, {.grid = {blocks_for(arguments.rows, block.y)}, .block = block},
                           norm_forward_kernel<n(), decltype(t), decltype(w)>, arguments);
                  });
}

void compute(const NormBackward& call, LaunchContext& context) {
  NormBackwardArguments arguments = norm_arguments(call);
  const int pack = norm_pack(call), h = arguments.h;
  const std::int64_t packs = h / pack;
  const bool held = is_held(packs, kHeldPacks);
  const dim3 block = row_block(packs, kHeldPacks, kLongThreads);
  // 100 to 122 registers a thread leave room for 512 of them on a multiprocessor. Each moves 96
  // bytes a round of about 1 µs (a load and a reduction): 6.5 TB/s of an H200's 132.
  constexpr unsigned kResident = 512;
  const auto blocks = static_cast<int>(std::min<std::int64_t>(
      blocks_for(arguments.rows, block.y),
      std::int64_t{std::max(1u, kResident / (block.x * block.y))} * context.multiprocessors));
  const int count = held ? blocks : norm_backward_long_blocks(call, context);
  arguments.shares = static_cast<float*>(
      context.workspace(static_cast<std::size_t>(count) * 2 * h * sizeof(float)));
  if (held) {
    const auto start = [&](auto n, auto t, auto w, auto centered) {
      launch(context,
             {.grid = {static_cast<unsigned>(blocks)},
              .block = block,
              .shared_bytes = static_cast<std::size_t>(block.y) * h * sizeof(float)},
             norm_backward_kernel<n(), decltype(t), decltype(w), centered()>, arguments);
    };
    with_norm_types("norm_backward", call.x.dtype, call.weight.dtype, pack,
                    [&](auto n, auto t, auto w) {
                      if (call.mean.given())
                        start(n, t, w, std::true_type{});
                      else
                        start(n, t, w, std::false_type{});
                    });
  } else {
    norm_backward_long(call, arguments, count, context);
  }
  add_shares<RowShares>(context, arguments.shares, count, std::int64_t{2} * h, h,
                        device_elements<float>(call.d_weight), call.accumulate);
  if (call.d_bias.given())
    add_shares<RowShares>(context, arguments.shares + h, count, std::int64_t{2} * h, h,
                          device_elements<float>(call.d_bias), call.accumulate);
}

}  // namespace rehearse
