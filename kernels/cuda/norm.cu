// RMSNorm and LayerNorm with a fused residual. Bound by memory: forward reads x (and the residual)
// and writes out (and the sum); backward reads x, d_out (and d_residual) and writes d_x. A block
// takes a row; what it reads a second time lies in its L1 cache.
#include <algorithm>

#include "kernels/cuda/reductions.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

struct ForwardArguments {
  const void *x, *residual, *weight, *bias;
  void *sum, *out;
  float *mean, *inverse;
  int h;
  float epsilon;
};

template <int N, typename T, typename W>
__global__ void __launch_bounds__(kThreads) norm_forward_kernel(ForwardArguments call) {
  __shared__ float scratch[32];
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * call.h;
  const T* x = static_cast<const T*>(call.x) + row;
  const auto first = static_cast<int>(threadIdx.x) * N;
  constexpr int kStep = kThreads * N;
  if (call.residual != nullptr) {
    const T* residual = static_cast<const T*>(call.residual) + row;
    T* sum = static_cast<T*>(call.sum) + row;
    for (int j = first; j < call.h; j += kStep) {
      float a[N], b[N];
      load_pack<N>(a, x + j);
      load_pack<N>(b, residual + j);
#pragma unroll
      for (int i = 0; i < N; ++i) a[i] += b[i];
      store_pack<N>(sum + j, a);
    }
    x = sum;  // each thread reads back its own elements: no barrier is needed
  }
  const bool centered = call.mean != nullptr;
  float mean = 0;
  if (centered) {
    for (int j = first; j < call.h; j += kStep) {
      float a[N];
      load_pack<N>(a, x + j);
#pragma unroll
      for (int i = 0; i < N; ++i) mean += a[i];
    }
    mean = block_reduce(mean, Plus{}, 0.0f, scratch) / static_cast<float>(call.h);
  }
  float squares = 0;
  for (int j = first; j < call.h; j += kStep) {
    float a[N];
    load_pack<N>(a, x + j);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (a[i] - mean) * (a[i] - mean);
  }
  squares = block_reduce(squares, Plus{}, 0.0f, scratch);
  const float inverse = rsqrtf(squares / static_cast<float>(call.h) + call.epsilon);
  for (int j = first; j < call.h; j += kStep) {
    float a[N], w[N], b[N] = {};
    load_pack<N>(a, x + j);
    load_pack<N>(w, static_cast<const W*>(call.weight) + j);
    if (centered) load_pack<N>(b, static_cast<const W*>(call.bias) + j);
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] = (a[i] - mean) * inverse * w[i] + b[i];
    store_pack<N>(static_cast<T*>(call.out) + row + j, a);
  }
  if (threadIdx.x == 0) {
    call.inverse[blockIdx.x] = inverse;
    if (centered) call.mean[blockIdx.x] = mean;
  }
}

struct BackwardArguments {
  const void *x, *d_out, *weight, *d_residual;
  void* d_x;
  const float *mean, *inverse;
  float* partial;  // (blocks, 2, h): each block's share of d_weight and d_bias
  std::int64_t rows;
  int h;
};

/// A block works through every gridDim.x-th row and keeps the columns' parameter gradients in
/// shared memory; a column belongs to one thread. Column j + i lies at i·h/N + j/N there: lanes are
/// N columns apart, and side by side they fall into different banks.
template <int N, typename T, typename W>
__global__ void __launch_bounds__(kThreads) norm_backward_kernel(BackwardArguments call) {
  __shared__ float scratch[32];
  float* d_weight = static_cast<float*>(dynamic_shared_memory());
  float* d_bias = d_weight + call.h;
  const bool centered = call.mean != nullptr;
  const auto first = static_cast<int>(threadIdx.x) * N;
  constexpr int kStep = kThreads * N;
  const int packs = call.h / N;
  for (int j = first; j < call.h; j += kStep)
    for (int i = 0; i < N; ++i) {
      d_weight[i * packs + j / N] = 0;
      if (centered) d_bias[i * packs + j / N] = 0;
    }
  for (std::int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const T* x = static_cast<const T*>(call.x) + row * call.h;
    const T* d_out = static_cast<const T*>(call.d_out) + row * call.h;
    const float inverse = call.inverse[row], mean = centered ? call.mean[row] : 0.0f;
    float gradient_mean = 0, projection = 0;
    for (int j = first; j < call.h; j += kStep) {
      float a[N], g[N], w[N];
      load_pack<N>(a, x + j);
      load_pack<N>(g, d_out + j);
      load_pack<N>(w, static_cast<const W*>(call.weight) + j);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float normal = (a[i] - mean) * inverse;
        d_weight[i * packs + j / N] += g[i] * normal;
        if (centered) d_bias[i * packs + j / N] += g[i];
        gradient_mean += g[i] * w[i];
        projection += g[i] * w[i] * normal;
      }
    }
    projection = block_reduce(projection, Plus{}, 0.0f, scratch) / static_cast<float>(call.h);
    gradient_mean =
        centered ? block_reduce(gradient_mean, Plus{}, 0.0f, scratch) / static_cast<float>(call.h)
                 : 0.0f;
    for (int j = first; j < call.h; j += kStep) {
      float a[N], g[N], w[N], beside[N] = {};
      load_pack<N>(a, x + j);
      load_pack<N>(g, d_out + j);
      load_pack<N>(w, static_cast<const W*>(call.weight) + j);
      if (call.d_residual != nullptr)
        load_pack<N>(beside, static_cast<const T*>(call.d_residual) + row * call.h + j);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float normal = (a[i] - mean) * inverse;
        a[i] = inverse * (g[i] * w[i] - gradient_mean - normal * projection) + beside[i];
      }
      store_pack<N>(static_cast<T*>(call.d_x) + row * call.h + j, a);
    }
  }
  float* partial = call.partial + static_cast<std::int64_t>(blockIdx.x) * 2 * call.h;
  for (int j = first; j < call.h; j += kStep)
    for (int i = 0; i < N; ++i) {
      partial[j + i] = d_weight[i * packs + j / N];
      if (centered) partial[call.h + j + i] = d_bias[i * packs + j / N];
    }
}

constexpr int kShareColumns = 32, kShareRows = 8;

/// Adds the blocks' shares: kShareRows threads a column take every kShareRows-th share, so that
/// many reads are under way, and their sums are added in their order.
__global__ void __launch_bounds__(kShareColumns* kShareRows)
    add_shares_kernel(const float* partial, int blocks, int h, float* d_weight, float* d_bias,
                      bool accumulate) {
  __shared__ float sums[2][kShareRows][kShareColumns];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int column = static_cast<int>(blockIdx.x) * kShareColumns + x;
  float weight = 0, bias = 0;
  for (int block = y; block < blocks && column < h; block += kShareRows) {
    const float* share = partial + static_cast<std::int64_t>(block) * 2 * h;
    weight += share[column];
    if (d_bias != nullptr) bias += share[h + column];
  }
  sums[0][y][x] = weight;
  sums[1][y][x] = bias;
  __syncthreads();
  if (y != 0 || column >= h) return;
  weight = accumulate ? d_weight[column] : 0.0f;
  bias = accumulate && d_bias != nullptr ? d_bias[column] : 0.0f;
  for (int i = 0; i < kShareRows; ++i) {
    weight += sums[0][i][x];
    bias += sums[1][i][x];
  }
  d_weight[column] = weight;
  if (d_bias != nullptr) d_bias[column] = bias;
}

/// Calls body with element types of activations and parameters, and the pack's size.
template <typename Body>
void with_norm_types(const char* name, DType activation, DType parameter, bool packed,
                     const Body& body) {
  with_device_type(name, activation, [&](auto t) {
    with_device_type(name, parameter, [&](auto w) {
      with_pack<decltype(t)>(packed, [&](auto n) { body(n, t, w); });
    });
  });
}

}  // namespace

void compute(const NormForward& call, LaunchContext& context) {
  const auto h = static_cast<int>(call.x.size(1));
  const ForwardArguments arguments{.x = call.x.data,
                                   .residual = call.residual.data,
                                   .weight = call.weight.data,
                                   .bias = call.bias.data,
                                   .sum = call.sum.data,
                                   .out = call.out.data,
                                   .mean = device_elements<float>(call.mean),
                                   .inverse = device_elements<float>(call.inverse_deviation),
                                   .h = h,
                                   .epsilon = call.epsilon};
  // Parameters may be wider than activations: a pack of theirs is then two accesses.
  const int pack = call.x.dtype == DType::Bf16 ? kFullPack<Bf16> : kFullPack<float>;
  const bool packed = packs_fit(pack, h, call.x, call.residual, call.sum, call.out) &&
                      packs_fit(pack, h, reshaped(call.weight, {1, h}));
  with_norm_types(
      "norm_forward", call.x.dtype, call.weight.dtype, packed, [&](auto n, auto t, auto w) {
        launch(context, {.grid = {static_cast<unsigned>(call.x.size(0))}, .block = {kThreads}},
               norm_forward_kernel<n(), decltype(t), decltype(w)>, arguments);
      });
}

void compute(const NormBackward& call, LaunchContext& context) {
  const auto h = static_cast<int>(call.x.size(1));
  const std::int64_t rows = call.x.size(0);
  const std::size_t shared_bytes = 2 * static_cast<std::size_t>(h) * sizeof(float);
  if (shared_bytes > context.max_shared_bytes)
    throw OperatorError("norm_backward: rows of " + std::to_string(h) +
                        " elements exceed the shared memory of a block");
  // Up to four blocks of a multiprocessor: while some add up a row, others read.
  const auto fitting =
      static_cast<std::int64_t>(context.max_shared_bytes / std::max<std::size_t>(1, shared_bytes));
  const auto blocks = static_cast<int>(std::min<std::int64_t>(
      rows, std::clamp<std::int64_t>(fitting, 1, 4) * context.multiprocessors));
  auto* partial = static_cast<float*>(
      context.workspace(static_cast<std::size_t>(blocks) * 2 * h * sizeof(float)));
  const BackwardArguments arguments{.x = call.x.data,
                                    .d_out = call.d_out.data,
                                    .weight = call.weight.data,
                                    .d_residual = call.d_residual.data,
                                    .d_x = call.d_x.data,
                                    .mean = device_elements<float>(call.mean),
                                    .inverse = device_elements<float>(call.inverse_deviation),
                                    .partial = partial,
                                    .rows = rows,
                                    .h = h};
  const int pack = call.x.dtype == DType::Bf16 ? kFullPack<Bf16> : kFullPack<float>;
  const bool packed = packs_fit(pack, h, call.x, call.d_out, call.d_residual, call.d_x) &&
                      packs_fit(pack, h, reshaped(call.weight, {1, h}));
  with_norm_types("norm_backward", call.x.dtype, call.weight.dtype, packed,
                  [&](auto n, auto t, auto w) {
                    launch(context,
                           {.grid = {static_cast<unsigned>(blocks)},
                            .block = {kThreads},
                            .shared_bytes = shared_bytes},
                           norm_backward_kernel<n(), decltype(t), decltype(w)>, arguments);
                  });
  launch(context, {.grid = {blocks_for(h, kShareColumns)}, .block = {kShareColumns, kShareRows}},
         add_shares_kernel, partial, blocks, h, device_elements<float>(call.d_weight),
         device_elements<float>(call.d_bias), call.accumulate);
}

}  // namespace rehearse
