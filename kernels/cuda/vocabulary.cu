// Embedding and cross entropy. Bound by memory: the embedding reads and writes one row a token;
// its gradient adds one row a token in fp32; cross entropy reads the logits once forward, and
// reads and overwrites them once backward.
#include <algorithm>

#include "kernels/cuda/reductions.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

struct EmbeddingArguments {
  const std::int32_t *tokens, *positions;
  const void *table, *position_table;
  void* out;
  std::int64_t first_row, table_rows;
  int h;
};

template <int N, typename T>
__global__ void __launch_bounds__(kThreads) embedding_kernel(EmbeddingArguments call) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t row = call.tokens[t] - call.first_row;
  const bool here = row >= 0 && row < call.table_rows;
  const T* from = static_cast<const T*>(call.table) + row * call.h;
  for (int j = static_cast<int>(threadIdx.x) * N; j < call.h; j += kThreads * N) {
    float value[N] = {};
    if (here) load_pack<N>(value, from + j);
    if (call.positions != nullptr) {
      float place[N];
      load_pack<N>(place, static_cast<const T*>(call.position_table) +
                              static_cast<std::int64_t>(call.positions[t]) * call.h + j);
#pragma unroll
      for (int i = 0; i < N; ++i) value[i] += place[i];
    }
    store_pack<N>(static_cast<T*>(call.out) + t * call.h + j, value);
  }
}

/// A block a token and slice of columns. The first occurrence of a token id adds all of them, in
/// order; the others see an earlier one and leave. No atomics: the same inputs, the same bytes.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    embedding_backward_kernel(const std::int32_t* tokens, const T* d_out, float* d_table,
                              std::int64_t first_row, std::int64_t table_rows, int rows, int h) {
  __shared__ int found[kThreads / 32];
  const int t = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const std::int32_t token = tokens[t];
  const std::int64_t row = token - first_row;
  if (row < 0 || row >= table_rows) return;
  bool repeated = false;
  for (int i = thread; i < t; i += kThreads) repeated = repeated || tokens[i] == token;
  const bool any_in_warp = __ballot_sync(kFullWarp, repeated) != 0;
  if (thread % 32 == 0) found[thread / 32] = any_in_warp ? 1 : 0;
  __syncthreads();
  for (int warp = 0; warp < kThreads / 32; ++warp)
    if (found[warp] != 0) return;
  const int column = static_cast<int>(blockIdx.y) * kThreads + thread;
  float sum = column < h ? d_table[row * h + column] : 0.0f;
  // Warps look 32 tokens ahead together; all of them walk through the same matches.
  for (int first = t; first < rows; first += 32) {
    const int i = first + thread % 32;
    unsigned matches = __ballot_sync(kFullWarp, i < rows && tokens[i] == token);
    for (int bit = 0; matches != 0; ++bit, matches >>= 1)
      if ((matches & 1u) != 0 && column < h)
        sum += device_float(d_out[static_cast<std::int64_t>(first + bit) * h + column]);
  }
  if (column < h) d_table[row * h + column] = sum;
}

struct CrossEntropyArguments {
  const std::int32_t* targets;
  float *maximum, *sum, *target_logit;
  const float* loss_scale;
  float* loss;
  std::int64_t first_column, stride;
  int columns;  // of this slice that are no padding
  int width;    // with padding
};

/// A running maximum and the sum of exponentials relative to it, in one reading of the row.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_forward_kernel(const T* logits, CrossEntropyArguments call) {
  __shared__ float scratch[32];
  const std::int64_t t = blockIdx.x;
  const T* row = logits + t * call.stride;
  float maximum = -INFINITY, sum = 0;
  for (int j = static_cast<int>(threadIdx.x) * N; j < call.columns; j += kThreads * N) {
    float value[N];
    load_pack<N>(value, row + j);
    float largest = maximum;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (j + i >= call.columns) value[i] = -INFINITY;
      largest = fmaxf(largest, value[i]);
    }
    if (largest == -INFINITY) continue;
    sum *= maximum == -INFINITY ? 0.0f : __expf(maximum - largest);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += __expf(value[i] - largest);
    maximum = largest;
  }
  const float whole = block_reduce(maximum, Larger{}, -INFINITY, scratch);
  const float share = maximum == -INFINITY ? 0.0f : sum * __expf(maximum - whole);
  const float total = block_reduce(share, Plus{}, 0.0f, scratch);
  if (threadIdx.x != 0) return;
  const std::int64_t target = call.targets[t] - call.first_column;
  call.maximum[t] = whole;
  call.sum[t] = total;
  call.target_logit[t] = target >= 0 && target < call.columns ? device_float(row[target]) : 0.0f;
}

__global__ void rescale_kernel(const float* local_maximum, const float* maximum, float* sum,
                               int rows) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (t < rows && sum[t] != 0) sum[t] *= __expf(local_maximum[t] - maximum[t]);
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_backward_kernel(T* logits, CrossEntropyArguments call) {
  const std::int64_t t = blockIdx.x;
  T* row = logits + t * call.stride;
  const bool ignored = call.targets[t] < 0;
  const std::int64_t target = call.targets[t] - call.first_column;
  const float maximum = call.maximum[t], sum = call.sum[t];
  const float scale = ignored ? 0.0f : call.loss_scale[t], factor = scale / sum;
  for (int j = static_cast<int>(threadIdx.x) * N; j < call.width; j += kThreads * N) {
    float value[N];
    load_pack<N>(value, row + j);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float gradient = factor * __expf(value[i] - maximum) - (j + i == target ? scale : 0.0f);
      value[i] = j + i < call.columns ? gradient : 0.0f;
    }
    store_pack<N>(row + j, value);
  }
  if (threadIdx.x == 0)
    call.loss[t] = ignored ? 0.0f : __logf(sum) + maximum - call.target_logit[t];
}

template <typename Call>
CrossEntropyArguments slice_of(const Call& call) {
  const std::int64_t width = call.logits.size(1);
  const std::int64_t real = std::clamp<std::int64_t>(call.vocabulary - call.first_column, 0, width);
  CrossEntropyArguments arguments{};
  arguments.targets = device_elements<std::int32_t>(call.targets);
  arguments.first_column = call.first_column;
  arguments.stride = call.logits.shape.stride;
  arguments.columns = static_cast<int>(real);
  arguments.width = static_cast<int>(width);
  return arguments;
}

}  // namespace

void compute(const EmbeddingForward& call, LaunchContext& context) {
  const EmbeddingArguments arguments{.tokens = device_elements<std::int32_t>(call.tokens),
                                     .positions = device_elements<std::int32_t>(call.positions),
                                     .table = call.table.data,
                                     .position_table = call.position_table.data,
                                     .out = call.out.data,
                                     .first_row = call.first_row,
                                     .table_rows = call.table.size(0),
                                     .h = static_cast<int>(call.table.size(1))};
  with_device_type("embedding_forward", call.table.dtype, [&](auto tag) {
    using T = decltype(tag);
    const bool packed =
        packs_fit(kFullPack<T>, call.table.size(1), call.table, call.position_table, call.out);
    with_pack<T>(packed, [&](auto n) {
      launch(context, {.grid = {static_cast<unsigned>(call.tokens.size(0))}, .block = {kThreads}},
             embedding_kernel<n(), T>, arguments);
    });
  });
}

void compute(const EmbeddingBackward& call, LaunchContext& context) {
  const auto rows = static_cast<int>(call.d_out.size(0)), h = static_cast<int>(call.d_out.size(1));
  with_device_type("embedding_backward", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(context,
           {.grid = {static_cast<unsigned>(rows), blocks_for(h, kThreads)}, .block = {kThreads}},
           embedding_backward_kernel<T>, device_elements<std::int32_t>(call.tokens),
           device_elements<T>(call.d_out), device_elements<float>(call.d_table), call.first_row,
           call.d_table.size(0), rows, h);
  });
}

void compute(const CrossEntropyForward& call, LaunchContext& context) {
  CrossEntropyArguments arguments = slice_of(call);
  arguments.maximum = device_elements<float>(call.maximum);
  arguments.sum = device_elements<float>(call.sum);
  arguments.target_logit = device_elements<float>(call.target_logit);
  with_device_type("cross_entropy_forward", call.logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, call.logits.size(1), call.logits), [&](auto n) {
      launch(context, {.grid = {static_cast<unsigned>(call.logits.size(0))}, .block = {kThreads}},
             cross_entropy_forward_kernel<n(), T>, device_elements<T>(call.logits), arguments);
    });
  });
}

void compute(const CrossEntropyRescale& call, LaunchContext& context) {
  const auto rows = static_cast<int>(call.sum.size(0));
  with_device_type("cross_entropy_rescale", call.sum.dtype, [&](auto) {
    launch(context, {.grid = {blocks_for(rows, kThreads)}, .block = {kThreads}}, rescale_kernel,
           device_elements<float>(call.local_maximum), device_elements<float>(call.maximum),
           device_elements<float>(call.sum), rows);
  });
}

void compute(const CrossEntropyBackward& call, LaunchContext& context) {
  CrossEntropyArguments arguments = slice_of(call);
  // The kernel only reads these three; one struct serves both directions.
  arguments.maximum = const_cast<float*>(device_elements<float>(call.maximum));
  arguments.sum = const_cast<float*>(device_elements<float>(call.sum));
  arguments.target_logit = const_cast<float*>(device_elements<float>(call.target_logit));
  arguments.loss_scale = device_elements<float>(call.loss_scale);
  arguments.loss = device_elements<float>(call.loss);
  with_device_type("cross_entropy_backward", call.logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, call.logits.size(1), call.logits), [&](auto n) {
      launch(context, {.grid = {static_cast<unsigned>(call.logits.size(0))}, .block = {kThreads}},
             cross_entropy_backward_kernel<n(), T>, device_elements<T>(call.logits), arguments);
    });
  });
}

}  // namespace rehearse
