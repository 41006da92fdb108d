// Elementwise operators: every one is bound by memory. Bytes moved are those of its tensors, each
// read or written once; the floor of its time is those bytes over the measured copy bandwidth.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/fp8.cuh"
#include "kernels/ops/philox.h"

namespace rehearse {
namespace {

/// out = a + b: 3 tensors.
template <typename T>
struct AddBody {
  const T* a;
  const T* b;
  T* out;
  template <int N>
  struct Loaded {
    Pack<T, N> a, b;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return {pack_at<N>(a + i), pack_at<N>(b + i)};
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float x[N], y[N];
    unpack(x, loaded.a);
    unpack(y, loaded.b);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += y[j];
    store_pack<N>(out + i, x);
  }
};

/// Philox gives four words a counter; a pack smaller than four takes its own of them.
template <int N>
__device__ void keep_pack(bool (&keep)[N], std::int64_t i, std::uint64_t offset,
                          const PhiloxKeys& keys, std::uint32_t threshold) {
  constexpr int kWords = N < 4 ? N : 4;
#pragma unroll
  for (int j = 0; j < N; j += kWords) {
    const std::uint64_t at = offset + static_cast<std::uint64_t>(i + j);
    const PhiloxBlock block = philox(at / 4, keys);
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      // Offsets are multiples of 4, and so are packs of 4: the word is known, and the block stays
      // in registers.
      const auto word = kWords == 4 ? static_cast<std::uint64_t>(w) : (at + w) % 4;
      keep[j + w] = block.word[word] >= threshold;
    }
  }
}

/// 2 or 3 tensors and a mask of one byte an element.
template <typename T>
struct DropoutForwardBody {
  const T* x;
  const T* residual;
  T* out;
  std::uint8_t* mask;
  float keep_scale;
  std::uint32_t threshold;
  std::uint64_t offset;
  PhiloxKeys keys;
  template <int N>
  struct Loaded {
    Pack<T, N> x, residual;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    Loaded<N> loaded{};
    loaded.x = pack_at<N>(x + i);
    if (residual != nullptr) loaded.residual = pack_at<N>(residual + i);
    return loaded;
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N], beside[N];
    bool keep[N];
    unpack(value, loaded.x);
    unpack(beside, loaded.residual);
    keep_pack<N>(keep, i, offset, keys, threshold);
    Pack<std::uint8_t, N> kept;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      kept.element[j] = keep[j] ? 1 : 0;
      value[j] = beside[j] + (keep[j] ? value[j] * keep_scale : 0.0f);
    }
    put_pack(mask + i, kept);
    store_pack<N>(out + i, value);
  }
};

template <typename T>
struct DropoutBackwardBody {
  const T* d_out;
  const std::uint8_t* mask;
  T* d_x;
  float keep_scale;
  template <int N>
  struct Loaded {
    Pack<T, N> d_out;
    Pack<std::uint8_t, N> kept;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return {pack_at<N>(d_out + i), pack_at<N>(mask + i)};
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    unpack(value, loaded.d_out);
#pragma unroll
    for (int j = 0; j < N; ++j)
      value[j] = loaded.kept.element[j] != 0 ? value[j] * keep_scale : 0.0f;
    store_pack<N>(d_x + i, value);
  }
};

template <typename From, typename To>
struct CastBody {
  const From* x;
  To* out;
  template <int N>
  using Loaded = Pack<From, N>;
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return pack_at<N>(x + i);
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    unpack(value, loaded);
    store_pack<N>(out + i, value);
  }
};

template <typename T>
struct ScaleBody {
  T* x;
  const float* factor;
  template <int N>
  using Loaded = Pack<T, N>;
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return pack_at<N>(x + i);
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    unpack(value, loaded);
    const float scale = *factor;
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] *= scale;
    store_pack<N>(x + i, value);
  }
};

template <typename T>
struct ToFp8Body {
  const T* x;
  std::uint8_t* out;
  const float* scale;
  template <int N>
  using Loaded = Pack<T, N>;
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return pack_at<N>(x + i);
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    unpack(value, loaded);
    const float inverse = 1.0f / *scale;
    Pack<std::uint8_t, N> narrow;
#pragma unroll
    for (int j = 0; j < N; ++j) narrow.element[j] = nearest_fp8(value[j] * inverse);
    put_pack(out + i, narrow);
  }
};

template <typename T>
struct FromFp8Body {
  const std::uint8_t* x;
  T* out;
  const float* scale;
  template <int N>
  using Loaded = Pack<std::uint8_t, N>;
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return pack_at<N>(x + i);
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N];
    const float factor = *scale;
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] = float_of_fp8(loaded.element[j]) * factor;
    store_pack<N>(out + i, value);
  }
};

template <typename T>
struct RopeArguments {
  T* x;
  const float* table;
  const std::int32_t* positions;
  std::int64_t stride, tokens;
  int heads, half;
  float direction;
};

constexpr int kRopeHeads = 4;  // a thread turns by the same angles, all under way at once

/// A thread takes N neighbouring pairs of kRopeHeads heads; moves x once each way.
template <int N, typename T>
__global__ void __launch_bounds__(kElementwiseThreads) rope_kernel(RopeArguments<T> call) {
  const int packs = call.half / N;
  const std::int64_t of_token =
      static_cast<std::int64_t>((call.heads + kRopeHeads - 1) / kRopeHeads) * packs;
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kElementwiseThreads + threadIdx.x;
  if (item >= call.tokens * of_token) return;
  const std::int64_t token = item / of_token;
  const int rest = static_cast<int>(item - token * of_token), pair = rest % packs * N;
  const int first_head = rest / packs * kRopeHeads;
  T* first = call.x + token * call.stride + static_cast<std::int64_t>(first_head) * 2 * call.half;
  Pack<T, N> left[kRopeHeads], right[kRopeHeads];
#pragma unroll
  for (int head = 0; head < kRopeHeads; ++head)
    if (first_head + head < call.heads) {
      left[head] = pack_at<N>(first + 2 * head * call.half + pair);
      right[head] = pack_at<N>(first + (2 * head + 1) * call.half + pair);
    }
  const float* row = call.table + static_cast<std::int64_t>(call.positions[token]) * 2 * call.half;
  float cosine[N], sine[N];
  load_pack<N>(cosine, row + pair);
  load_pack<N>(sine, row + call.half + pair);
#pragma unroll
  for (int head = 0; head < kRopeHeads; ++head) {
    if (first_head + head >= call.heads) break;
    float a[N], b[N];
    unpack(a, left[head]);
    unpack(b, right[head]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float c = cosine[i], s = call.direction * sine[i], x = a[i];
      a[i] = x * c - b[i] * s;
      b[i] = b[i] * c + x * s;
    }
    store_pack<N>(first + 2 * head * call.half + pair, a);
    store_pack<N>(first + (2 * head + 1) * call.half + pair, b);
  }
}

/// fp64 is only converted: the sum under a gradient norm crosses ranks in fp32.
template <typename Body>
void with_cast_type(DType dtype, Body&& body) {
  if (dtype == DType::F64) return std::forward<Body>(body)(double{});
  with_device_type("cast", dtype, std::forward<Body>(body));
}

/// fp8 has no elements of its own on the device: bytes do.
bool is_fp8(const ConstTensorView& tensor) { return tensor.dtype == DType::F8E4m3; }

}  // namespace

void compute(const Rope& call, LaunchContext& context) {
  const int heads = int_size(call.x.size(1)), half = int_size(call.x.size(2) / 2);
  with_device_type("rope", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const RopeArguments<T> arguments{.x = device_elements<T>(call.x),
                                     .table = device_elements<float>(call.cosine_sine),
                                     .positions = device_elements<std::int32_t>(call.positions),
                                     .stride = call.x.shape.stride,
                                     .tokens = call.x.size(0),
                                     .heads = heads,
                                     .half = half,
                                     .direction = call.inverse ? -1.0f : 1.0f};
    with_pack<T>(packs_fit(kFullPack<T>, half, call.x, call.cosine_sine), [&](auto n) {
      const std::int64_t items = arguments.tokens * blocks_for(heads, kRopeHeads) * (half / n());
      launch(context,
             {.grid = {blocks_for(items, kElementwiseThreads)}, .block = {kElementwiseThreads}},
             rope_kernel<n(), T>, arguments);
    });
  });
}

void compute(const Add& call, LaunchContext& context) {
  const std::int64_t count = call.out.elements();
  with_device_type("add", call.out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const AddBody<T> body{device_elements<T>(call.a), device_elements<T>(call.b),
                          device_elements<T>(call.out)};
    launch_flat<T>(context, body, count, call.a, call.b, call.out);
  });
}

void compute(const DropoutForward& call, LaunchContext& context) {
  const std::int64_t count = call.x.elements();
  with_device_type("dropout_forward", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const DropoutForwardBody<T> body{
        device_elements<T>(call.x),
        call.residual.given() ? device_elements<T>(call.residual) : nullptr,
        device_elements<T>(call.out),
        device_elements<std::uint8_t>(call.mask),
        1.0f / (1.0f - call.probability),
        dropout_threshold(call.probability),
        call.offset,
        philox_keys(call.seed)};
    const auto flat = [&](const ConstTensorView& tensor) {
      return tensor.given() ? reshaped(tensor, {1, count}) : tensor;
    };
    with_pack<T>(packs_fit(kFullPack<T>, count, flat(call.x), flat(call.residual), flat(call.out),
                           flat(call.mask)),
                 [&](auto n) { launch_elementwise<n()>(context, body, count); });
  });
}

void compute(const DropoutBackward& call, LaunchContext& context) {
  const std::int64_t count = call.d_out.elements();
  with_device_type("dropout_backward", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const DropoutBackwardBody<T> body{
        device_elements<T>(call.d_out), device_elements<std::uint8_t>(call.mask),
        device_elements<T>(call.d_x), 1.0f / (1.0f - call.probability)};
    launch_flat<T>(context, body, count, call.d_out, call.mask, call.d_x);
  });
}

void compute(const Cast& call, LaunchContext& context) {
  const std::int64_t count = call.x.elements();
  const ConstTensorView x = reshaped(call.x, {1, count});
  const TensorView out = reshaped(call.out, {1, count});
  const auto run = [&](auto smaller, const auto& body) {
    using T = decltype(smaller);
    // A pack of the wider type is short in the narrower: four of them are under way.
    launch_flat<T, 4>(context, body, count, x, out);
  };
  if (is_fp8(call.x) && is_fp8(call.out))
    throw OperatorError("cast: fp8 is not cast to fp8 on the device");
  if (is_fp8(call.out))
    return with_device_type("cast", x.dtype, [&](auto tag) {
      using T = decltype(tag);
      run(tag, ToFp8Body<T>{device_elements<T>(x), device_elements<std::uint8_t>(out),
                            device_elements<float>(call.scale)});
    });
  if (is_fp8(call.x))
    return with_device_type("cast", out.dtype, [&](auto tag) {
      using T = decltype(tag);
      run(tag, FromFp8Body<T>{device_elements<std::uint8_t>(x), device_elements<T>(out),
                              device_elements<float>(call.scale)});
    });
  if (call.x.dtype == DType::F64 && call.out.dtype == DType::F64)
    throw OperatorError("cast: fp64 is not cast to fp64 on the device");
  with_cast_type(out.dtype, [&](auto to) {
    using To = decltype(to);
    with_cast_type(x.dtype, [&](auto from) {
      using From = decltype(from);
      // The wider type decides how many elements make 16 bytes.
      using Wider = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
      run(Wider{}, CastBody<From, To>{device_elements<From>(x), device_elements<To>(out)});
    });
  });
}

void compute(const Scale& call, LaunchContext& context) {
  const std::int64_t count = call.x.elements();
  with_device_type("scale", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ScaleBody<T> body{device_elements<T>(call.x), device_elements<float>(call.factor)};
    launch_flat<T>(context, body, count, call.x);
  });
}

}  // namespace rehearse
