// Embedding and cross entropy. Bound by memory: the embedding reads and writes one row a token;
// its gradient adds one row a token in fp32; cross entropy reads the logits once forward, and
// reads and overwrites them once backward.
#include <algorithm>

#include "kernels/cuda/rows.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

struct EmbeddingArguments {
  const std::int32_t *tokens, *positions;
  const void *table, *position_table;
  void* out;
  std::int64_t first_row, table_rows, rows;
  int h;
};

template <int N, typename T>
__global__ void __launch_bounds__(kRowThreads) embedding_kernel(EmbeddingArguments call) {
  struct Both {
    Pack<T, N> word, place;
  };
  const std::int64_t t = thread_row();
  if (t >= call.rows) return;
  const std::int64_t row = call.tokens[t] - call.first_row;
  const bool here = row >= 0 && row < call.table_rows;
  const T* word = static_cast<const T*>(call.table) + row * call.h;
  const T* place = call.positions == nullptr
                       ? nullptr
                       : static_cast<const T*>(call.position_table) +
                             static_cast<std::int64_t>(call.positions[t]) * call.h;
  row_pass<N>(
      call.h,
      [&](int j) {
        Both both{};
        if (here) both.word = pack_at<N>(word + j);
        if (place != nullptr) both.place = pack_at<N>(place + j);
        return both;
      },
      [&](int j, const Both& both) {
        float a[N], b[N];
        unpack(a, both.word);
        unpack(b, both.place);
#pragma unroll
        for (int i = 0; i < N; ++i) a[i] += b[i];
        store_pack<N>(static_cast<T*>(call.out) + t * call.h + j, a);
      });
}

struct CrossEntropyArguments {
  const std::int32_t* targets;
  float *maximum, *sum, *target_logit;
  const float* loss_scale;
  float* loss;
  std::int64_t first_column, stride, rows;
  int columns;  // of this slice that are no padding
  int width;    // with padding
};

/// e^(x − maximum). The difference first: it is exact where it matters.
__device__ __forceinline__ float exp_below(float x, float maximum) {
  return exp2_fast((x - maximum) * 1.4426950408889634f);
}

/// A running maximum and the sum of exponentials relative to it, in one reading of the row:
/// 2 bytes an element in bf16 leave time for 15 instructions.
template <int N, typename T>
__global__ void __launch_bounds__(kRowThreads, 4)
    cross_entropy_forward_kernel(const T* logits, CrossEntropyArguments call) {
  __shared__ float scratch[32];
  const std::int64_t t = thread_row();
  const bool exists = t < call.rows;
  const T* row = logits + t * call.stride;
  float maximum = -INFINITY, sum = 0;
  row_pass<N>(
      exists ? call.columns : 0, [&](int j) { return pack_at<N>(row + j); },
      [&](int j, const Pack<T, N>& loaded) {
        float value[N];
        unpack(value, loaded);
        if (j + N > call.columns)  // a last pack reaches into the padding
#pragma unroll
          for (int i = 0; i < N; ++i)
            if (j + i >= call.columns) value[i] = -INFINITY;
        float largest = maximum;
#pragma unroll
        for (int i = 0; i < N; ++i) largest = fmaxf(largest, value[i]);
        // Nothing but −∞ (padding) adds 0; NaN, which is no maximum, adds NaN.
        const float base = largest == -INFINITY ? 0.0f : largest;
        if (largest > maximum) sum = sum == 0 ? 0.0f : sum * exp_below(maximum, largest);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += exp_below(value[i], base);
        maximum = largest;
      });
  const float whole = row_reduce(maximum, Larger{}, -INFINITY, scratch);
  const float share = maximum == -INFINITY ? sum : sum * exp_below(maximum, whole);
  const float total = row_reduce(share, Plus{}, 0.0f, scratch);
  if (!exists || threadIdx.x != 0) return;
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
__global__ void __launch_bounds__(kRowThreads)
    cross_entropy_backward_kernel(T* logits, CrossEntropyArguments call) {
  const std::int64_t t = thread_row();
  if (t >= call.rows) return;
  T* row = logits + t * call.stride;
  const bool ignored = call.targets[t] < 0;
  const std::int64_t target = call.targets[t] - call.first_column;
  const float maximum = call.maximum[t], sum = call.sum[t];
  const float scale = ignored ? 0.0f : call.loss_scale[t], factor = scale / sum;
  row_pass<N>(
      call.width, [&](int j) { return pack_at<N>(row + j); },
      [&](int j, const Pack<T, N>& loaded) {
        float value[N];
        unpack(value, loaded);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float gradient =
              factor * exp_below(value[i], maximum) - (j + i == target ? scale : 0.0f);
          value[i] = j + i < call.columns ? gradient : 0.0f;
        }
        store_pack<N>(row + j, value);
      });
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
  arguments.rows = call.logits.size(0);
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
                                     .rows = call.tokens.size(0),
                                     .h = int_size(call.table.size(1))};
  with_device_type("embedding_forward", call.table.dtype, [&](auto tag) {
    using T = decltype(tag);
    const bool packed =
        packs_fit(kFullPack<T>, call.table.size(1), call.table, call.position_table, call.out);
    with_pack<T>(packed, [&](auto n) {
      launch(context, row_launch(arguments.rows, arguments.h / n()), embedding_kernel<n(), T>,
             arguments);
    });
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
      launch(context, row_launch(arguments.rows, arguments.width / n()),
             cross_entropy_forward_kernel<n(), T>, device_elements<T>(call.logits), arguments);
    });
  });
}

void compute(const CrossEntropyRescale& call, LaunchContext& context) {
  const auto rows = int_size(call.sum.size(0));
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
      launch(context, row_launch(arguments.rows, arguments.width / n()),
             cross_entropy_backward_kernel<n(), T>, device_elements<T>(call.logits), arguments);
    });
  });
}

}  // namespace rehearse
