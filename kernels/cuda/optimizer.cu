// Adam, gradient norm, buckets and column sums. Bound by memory: Adam moves 28 bytes a parameter
// (reads gradient, weight and two moments, writes weight and two moments, all fp32) and 2 more for
// the bf16 copy; the norm reads the gradient once.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cuda/rows.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

template <typename Gradient, typename Parameter>
struct AdamBody {
  float *master, *first, *second;
  const Gradient* gradient;
  Parameter* parameter;
  const float* gradient_scale;
  float rate, beta1, beta2, epsilon, decay, unbias1, unbias2;
  bool decoupled;
  template <int N>
  struct Loaded {
    Pack<float, N> master, first, second;
    Pack<Gradient, N> gradient;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return {pack_at<N>(master + i), pack_at<N>(first + i), pack_at<N>(second + i),
            pack_at<N>(gradient + i)};
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float w[N], m[N], v[N], g[N];
    unpack(w, loaded.master);
    unpack(m, loaded.first);
    unpack(v, loaded.second);
    unpack(g, loaded.gradient);
    const float scale = gradient_scale != nullptr ? *gradient_scale : 1.0f;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float slope = g[j] * scale + (decoupled ? 0.0f : decay * w[j]);
      m[j] = beta1 * m[j] + (1.0f - beta1) * slope;
      v[j] = beta2 * v[j] + (1.0f - beta2) * slope * slope;
      const float update = m[j] * unbias1 / (sqrtf(v[j] * unbias2) + epsilon);
      w[j] -= rate * (update + (decoupled ? decay * w[j] : 0.0f));
    }
    store_pack<N>(master + i, w);
    store_pack<N>(first + i, m);
    store_pack<N>(second + i, v);
    if (parameter != nullptr) store_pack<N>(parameter + i, w);
  }
};

constexpr int kSquarePacks = 4;  // that a thread has under way

/// A block adds every gridDim.x-th stretch of kThreads · kSquarePacks packs, in double.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    squared_sum_kernel(const T* x, std::int64_t count, double* partial) {
  __shared__ double scratch[32];
  double sum = 0;
  constexpr std::int64_t kStep = kThreads * N;
  for (std::int64_t i = blockIdx.x * kStep * kSquarePacks + threadIdx.x * N; i < count;
       i += gridDim.x * kStep * kSquarePacks) {
    Pack<T, N> loaded[kSquarePacks] = {};
#pragma unroll
    for (int p = 0; p < kSquarePacks; ++p)
      if (i + p * kStep < count) loaded[p] = pack_at<N>(x + i + p * kStep);
#pragma unroll
    for (int p = 0; p < kSquarePacks; ++p) {
      float value[N];
      unpack(value, loaded[p]);
      // A pack's squares in fp32, packs in fp64: few fp64 instructions, no growing error.
      float squares = 0;
#pragma unroll
      for (int j = 0; j < N; ++j) squares += value[j] * value[j];
      sum += static_cast<double>(squares);
    }
  }
  sum = block_reduce(sum, Plus{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_squares_kernel(const double* partial, int count, double* out, bool accumulate) {
  __shared__ double scratch[32];
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += partial[i];
  sum = block_reduce(sum, Plus{}, 0.0, scratch);
  if (threadIdx.x == 0) *out = accumulate ? *out + sum : sum;
}

__global__ void clip_factor_kernel(const double* squared_sum, float max_norm, float* norm,
                                   float* factor) {
  const double length = sqrt(*squared_sum);
  const double wanted = static_cast<double>(max_norm) / (length + 1e-6);
  *factor = static_cast<float>(wanted >= 1.0 ? 1.0 : wanted);  // NaN stays NaN
  if (norm != nullptr) *norm = static_cast<float>(length);
}

/// Rows of `width` elements.
template <typename From, typename To>
struct CopyBody {
  const From* from;
  To* to;
  std::int64_t width, from_stride, to_stride;
  template <int N>
  using Loaded = Pack<From, N>;
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return pack_at<N>(from + i + i / width * (from_stride - width));
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    unpack(value, loaded);
    store_pack<N>(to + i + i / width * (to_stride - width), value);
  }
};

/// A tensor as a matrix: its outermost entries as rows, or one row where it is contiguous.
TensorView as_rows(const TensorView& tensor) {
  TensorView rows = tensor;
  const bool is_flat = tensor.shape.contiguous();
  rows.shape = is_flat ? TensorShape{1, tensor.elements()}
                       : TensorShape{tensor.size(0), tensor.shape.row_elements()};
  if (!is_flat) rows.shape.stride = tensor.shape.stride;
  return rows;
}

constexpr std::size_t kReduceInputs = 16;  // pointers a launch carries

/// More inputs take several launches: `before` is what earlier ones added up, unrounded.
template <typename From, typename To>
struct ReduceBody {
  const From* input[kReduceInputs];
  int count;
  const float* before;
  To* out;
  float scale;
  template <int N>
  struct Loaded {
    float sum[N];
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    constexpr int kAtOnce = 4;  // inputs whose loads are under way together
    Loaded<N> loaded{};
    if (before != nullptr) load_pack<N>(loaded.sum, before + i);
    for (int first = 0; first < count; first += kAtOnce) {
      Pack<From, N> pack[kAtOnce] = {};
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        if (first + k < count) pack[k] = pack_at<N>(input[first + k] + i);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int j = 0; j < N; ++j) loaded.sum[j] += device_float(pack[k].element[j]);
    }
    return loaded;
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = loaded.sum[j];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] *= scale;
    store_pack<N>(out + i, sum);
  }
};

constexpr int kColumnRows = 128;  // of a block, whose sums are a share
constexpr int kColumnLanes = 8;   // threads a column, each with every kColumnLanes-th row
constexpr int kRowsAtOnce = 4;    // that a thread has under way

/// Threads along x take neighbouring packs of columns, those along y rows.
template <int N, typename T>
__global__ void __launch_bounds__(32 * kColumnLanes)
    column_shares_kernel(const T* x, std::int64_t stride, int rows, int columns, float* shares) {
  __shared__ float sums[kColumnLanes][32 * N + 1];
  const int lane = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int first_column = static_cast<int>(blockIdx.x) * 32 * N, column = first_column + lane * N;
  const int first_row = static_cast<int>(blockIdx.y) * kColumnRows;
  const int end = min(rows, first_row + kColumnRows);
  float sum[N] = {};
  for (int row = first_row + y; row < end && column < columns; row += kColumnLanes * kRowsAtOnce) {
    Pack<T, N> loaded[kRowsAtOnce] = {};
#pragma unroll
    for (int p = 0; p < kRowsAtOnce; ++p)
      if (row + p * kColumnLanes < end)
        loaded[p] = pack_at<N>(x + (row + p * kColumnLanes) * stride + column);
#pragma unroll
    for (int p = 0; p < kRowsAtOnce; ++p)
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += device_float(loaded[p].element[i]);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) sums[y][lane * N + i] = sum[i];
  __syncthreads();
  for (int j = y * 32 + lane; j < 32 * N && first_column + j < columns; j += 32 * kColumnLanes) {
    float share = 0;
#pragma unroll
    for (int k = 0; k < kColumnLanes; ++k) share += sums[k][j];
    shares[static_cast<std::int64_t>(blockIdx.y) * columns + first_column + j] = share;
  }
}

struct ColumnShares;  // names this file's add_shares_kernel

}  // namespace

void compute(const AdamUpdate& call, LaunchContext& context) {
  const std::int64_t n = call.master.size(0);
  if (call.master.dtype != DType::F32)
    throw OperatorError("adam_update: the device keeps master weights in fp32");
  const auto step = static_cast<double>(call.step);
  with_device_type("adam_update", call.gradient.dtype, [&](auto g) {
    const DType narrow = call.parameter.given() ? call.parameter.dtype : DType::Bf16;
    with_device_type("adam_update", narrow, [&](auto p) {
      const AdamBody<decltype(g), decltype(p)> body{
          .master = device_elements<float>(call.master),
          .first = device_elements<float>(call.first_moment),
          .second = device_elements<float>(call.second_moment),
          .gradient = device_elements<decltype(g)>(call.gradient),
          .parameter = device_elements<decltype(p)>(call.parameter),
          .gradient_scale = device_elements<float>(call.gradient_scale),
          .rate = call.learning_rate,
          .beta1 = call.beta1,
          .beta2 = call.beta2,
          .epsilon = call.epsilon,
          .decay = call.weight_decay,
          .unbias1 = static_cast<float>(1.0 / (1.0 - std::pow(call.beta1, step))),
          .unbias2 = static_cast<float>(1.0 / (1.0 - std::pow(call.beta2, step))),
          .decoupled = call.decoupled};
      // Four loads of 16 bytes are under way with one pack.
      launch_flat<float, 1>(context, body, n, call.master, call.first_moment, call.second_moment,
                            call.gradient, call.parameter);
    });
  });
}

void compute(const SquaredSum& call, LaunchContext& context) {
  const std::int64_t count = call.x.elements();
  const int blocks = static_cast<int>(
      std::clamp<std::int64_t>(count / 4096, 1, std::int64_t{8} * context.multiprocessors));
  auto* partial =
      static_cast<double*>(context.workspace(static_cast<std::size_t>(blocks) * sizeof(double)));
  with_device_type("squared_sum", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, count, reshaped(call.x, {1, count})), [&](auto n) {
      launch(context, {.grid = {static_cast<unsigned>(blocks)}, .block = {kThreads}},
             squared_sum_kernel<n(), T>, device_elements<T>(call.x), count, partial);
    });
  });
  launch(context, {.grid = {1}, .block = {kThreads}}, add_squares_kernel, partial, blocks,
         device_elements<double>(call.out), call.accumulate);
}

void compute(const ClipFactor& call, LaunchContext& context) {
  launch(context, {.grid = {1}, .block = {1}}, clip_factor_kernel,
         device_elements<double>(call.squared_sum), call.max_norm,
         device_elements<float>(call.norm), device_elements<float>(call.factor));
}

void compute(const BucketCopy& call, LaunchContext& context) {
  std::int64_t first = 0;
  for (const TensorView& tensor : call.tensors) {
    const std::int64_t count = tensor.elements();
    const TensorView rows = as_rows(tensor);
    const TensorView part =
        reshaped(slice_rows(call.bucket, first, count), {rows.size(0), rows.size(1)});
    const TensorView from = call.unpack ? part : rows;
    const TensorView to = call.unpack ? rows : part;
    first += count;
    if (count == 0) continue;
    with_device_type("bucket_copy", from.dtype, [&](auto a) {
      with_device_type("bucket_copy", to.dtype, [&](auto b) {
        using From = decltype(a);
        using To = decltype(b);
        using Wider = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
        const CopyBody<From, To> body{device_elements<From>(from), device_elements<To>(to),
                                      rows.size(1), from.shape.stride, to.shape.stride};
        if (rows.size(0) == 1) return launch_flat<Wider, 4>(context, body, count, from, to);
        with_pack<Wider>(packs_fit(kFullPack<Wider>, rows.size(1), from, to),
                         [&](auto n) { launch_elementwise<n(), 4>(context, body, count); });
      });
    });
  }
}

namespace {

/// Adds up to kReduceInputs inputs, from `first` on, and what was `before`.
template <typename From, typename To>
void add_inputs(const BucketReduce& call, std::size_t first, const float* before,
                const TensorView& out, float scale, LaunchContext& context) {
  using Wider = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
  const std::int64_t count = call.out.elements();
  ReduceBody<From, To> body{};
  body.before = before;
  body.out = device_elements<To>(out);
  body.scale = scale;
  ConstTensorView inputs[kReduceInputs];  // those beyond the last are not given
  for (std::size_t i = first; i < std::min(first + kReduceInputs, call.inputs.size()); ++i) {
    inputs[body.count] = call.inputs[i];
    body.input[body.count++] = device_elements<From>(call.inputs[i]);
  }
  const ConstTensorView sums{before, DType::F32, {count}};
  std::apply(
      [&](const auto&... input) {
        launch_flat<Wider>(context, body, count, out, before != nullptr ? sums : ConstTensorView{},
                           input...);
      },
      std::to_array(inputs));
}

}  // namespace

void compute(const BucketReduce& call, LaunchContext& context) {
  const std::int64_t count = call.out.elements();
  const auto last = (call.inputs.size() - 1) / kReduceInputs * kReduceInputs;
  // Not in `out`, which may be narrower, or one of the inputs.
  auto* sums =
      last == 0
          ? nullptr
          : static_cast<float*>(context.workspace(static_cast<std::size_t>(count) * sizeof(float)));
  with_device_type("bucket_reduce", call.inputs.front().dtype, [&](auto from) {
    using From = decltype(from);
    for (std::size_t first = 0; first < last; first += kReduceInputs)
      add_inputs<From, float>(call, first, first == 0 ? nullptr : sums, {sums, DType::F32, {count}},
                              1.0f, context);
    with_device_type("bucket_reduce", call.out.dtype, [&](auto to) {
      add_inputs<From, decltype(to)>(call, last, sums, call.out, call.scale, context);
    });
  });
}

void compute(const ColumnSum& call, LaunchContext& context) {
  const auto rows = int_size(call.x.size(0)), columns = int_size(call.x.size(1));
  const unsigned count = blocks_for(rows, kColumnRows);
  auto* shares = static_cast<float*>(context.workspace(
      static_cast<std::size_t>(count) * static_cast<std::size_t>(columns) * sizeof(float)));
  with_device_type("column_sum", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, columns, call.x), [&](auto n) {
      launch(context, {.grid = {blocks_for(columns, 32 * n()), count}, .block = {32, kColumnLanes}},
             column_shares_kernel<n(), T>, device_elements<T>(call.x), call.x.shape.stride, rows,
             columns, shares);
    });
  });
  add_shares<ColumnShares>(context, shares, static_cast<int>(count), columns, columns,
                           device_elements<float>(call.out), call.accumulate);
}

}  // namespace rehearse
