// RMSNorm and LayerNorm of rows that are too long for the registers of a block (norm.cu has the
// others, and the bytes moved): a block takes a row; what it reads a second time lies in its L1
// cache.
#include "kernels/cuda/norm_arguments.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

template <int N, typename T, typename W>
__global__ void __launch_bounds__(kThreads) long_forward_kernel(NormForwardArguments call) {
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

/// A block works through every gridDim.x-th row and keeps the columns' parameter gradients in
/// shared memory; a column belongs to one thread. Column j + i lies at i·h/N + j/N there: lanes are
/// N columns apart, and side by side they fall into different banks.
template <int N, typename T, typename W>
__global__ void __launch_bounds__(kThreads) long_backward_kernel(NormBackwardArguments call) {
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
  float* share = call.shares + static_cast<std::int64_t>(blockIdx.x) * 2 * call.h;
  for (int j = first; j < call.h; j += kStep)
    for (int i = 0; i < N; ++i) {
      share[j + i] = d_weight[i * packs + j / N];
      if (centered) share[call.h + j + i] = d_bias[i * packs + j / N];
    }
}

ConstTensorView row_of(const ConstTensorView& vector, std::int64_t h) {
  return vector.given() ? reshaped(vector, {1, h}) : vector;
}

std::size_t column_bytes(int h) { return 2 * static_cast<std::size_t>(h) * sizeof(float); }

}  // namespace

NormForwardArguments norm_arguments(const NormForward& call) {
  return {.x = call.x.data,
          .residual = call.residual.data,
          .weight = call.weight.data,
          .bias = call.bias.data,
          .sum = call.sum.data,
          .out = call.out.data,
          .mean = device_elements<float>(call.mean),
          .inverse = device_elements<float>(call.inverse_deviation),
          .rows = call.x.size(0),
          .h = int_size(call.x.size(1)),
          .epsilon = call.epsilon};
}

NormBackwardArguments norm_arguments(const NormBackward& call) {
  return {.x = call.x.data,
          .d_out = call.d_out.data,
          .weight = call.weight.data,
          .d_residual = call.d_residual.data,
          .d_x = call.d_x.data,
          .mean = device_elements<float>(call.mean),
          .inverse = device_elements<float>(call.inverse_deviation),
          .shares = nullptr,
          .rows = call.x.size(0),
          .h = int_size(call.x.size(1))};
}

// Parameters may be wider than activations: a pack of theirs is then two accesses.
int norm_pack(const NormForward& call) {
  const int pack = call.x.dtype == DType::Bf16 ? kFullPack<Bf16> : kFullPack<float>;
  const std::int64_t h = call.x.size(1);
  return packs_fit(pack, h, call.x, call.residual, call.sum, call.out) &&
                 packs_fit(pack, h, reshaped(call.weight, {1, h}), row_of(call.bias, h))
             ? pack
             : 1;
}

int norm_pack(const NormBackward& call) {
  const int pack = call.x.dtype == DType::Bf16 ? kFullPack<Bf16> : kFullPack<float>;
  const std::int64_t h = call.x.size(1);
  return packs_fit(pack, h, call.x, call.d_out, call.d_residual, call.d_x) &&
                 packs_fit(pack, h, reshaped(call.weight, {1, h}))
             ? pack
             : 1;
}

void norm_forward_long(const NormForward& call, LaunchContext& context) {
  with_norm_types(
      "norm_forward", call.x.dtype, call.weight.dtype, norm_pack(call),
      [&](auto n, auto t, auto w) {
        launch(context, {.grid = {static_cast<unsigned>(call.x.size(0))}, .block = {kThreads}},
               long_forward_kernel<n(), decltype(t), decltype(w)>, norm_arguments(call));
      });
}

int norm_backward_long_blocks(const NormBackward& call, LaunchContext& context) {
  const std::size_t shared_bytes = column_bytes(int_size(call.x.size(1)));
  if (shared_bytes > context.max_shared_bytes)
    throw OperatorError("norm_backward: rows of " + std::to_string(call.x.size(1)) +
                        " elements exceed the shared memory of a block");
  // Up to four blocks of a multiprocessor: while some add up a row, others read.
  const auto fitting = static_cast<std::int64_t>(context.max_shared_bytes / shared_bytes);
  return static_cast<int>(std::min<std::int64_t>(
      call.x.size(0), std::min<std::int64_t>(fitting, 4) * context.multiprocessors));
}

void norm_backward_long(const NormBackward& call, const NormBackwardArguments& arguments,
                        int blocks, LaunchContext& context) {
  with_norm_types("norm_backward", call.x.dtype, call.weight.dtype, norm_pack(call),
                  [&](auto n, auto t, auto w) {
                    launch(context,
                           {.grid = {static_cast<unsigned>(blocks)},
                            .block = {kThreads},
                            .shared_bytes = column_bytes(arguments.h)},
                           long_backward_kernel<n(), decltype(t), decltype(w)>, arguments);
                  });
}

}  // namespace rehearse
