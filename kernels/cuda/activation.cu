// Activations and their gradients. Bound by memory: GeLU moves 2 tensors forward and 3 backward,
// SwiGLU 3 and 5 halves (reads gate and value, writes the product; backward reads d_out, gate and
// value, writes both gradients).
#include "kernels/cuda/elements.cuh"

namespace rehearse {
namespace {

// The formulas are kernels/ops/cpu/activation_formulas.h's, in fp32.
// __fdividef is 0 where the divisor exceeds 2^126, as a sigmoid of x < −87 may well be.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
constexpr float kTwiceSqrtTwoOverPi = 1.5957691216057308f;

struct GeluFormula {
  __device__ static float forward(float x) {
    return x * sigmoid(kTwiceSqrtTwoOverPi * (x + 0.044715f * x * x * x));
  }
  __device__ static float slope(float x) {
    const float s = sigmoid(kTwiceSqrtTwoOverPi * (x + 0.044715f * x * x * x));
    return s + x * s * (1.0f - s) * kTwiceSqrtTwoOverPi * (1.0f + 3 * 0.044715f * x * x);
  }
};
struct SquaredReluFormula {
  __device__ static float forward(float x) { return x <= 0 ? 0.0f : x * x; }
  __device__ static float slope(float x) { return x <= 0 ? 0.0f : 2 * x; }
};

template <typename T, typename Formula>
struct ForwardBody {
  const T* x;
  T* out;
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
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] = Formula::forward(value[j]);
    store_pack<N>(out + i, value);
  }
};

template <typename T, typename Formula>
struct BackwardBody {
  const T* x;
  const T* d_out;
  T* d_x;
  template <int N>
  struct Loaded {
    Pack<T, N> x, d_out;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    return {pack_at<N>(x + i), pack_at<N>(d_out + i)};
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float value[N], gradient[N];
    unpack(value, loaded.x);
    unpack(gradient, loaded.d_out);
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] = gradient[j] * Formula::slope(value[j]);
    store_pack<N>(d_x + i, value);
  }
};

/// Index i counts outputs; the gate of output i lies at row·2f + column, its value f further.
template <typename T>
struct SwigluForwardBody {
  const T* x;
  T* out;
  std::int64_t f;
  template <int N>
  struct Loaded {
    Pack<T, N> gate, linear;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    const T* at = x + i + i / f * f;
    return {pack_at<N>(at), pack_at<N>(at + f)};
  }
  template <int N>
  __device__ void store(std::int64_t i, const Loaded<N>& loaded) const {
    float gate[N], linear[N];
    unpack(gate, loaded.gate);
    unpack(linear, loaded.linear);
#pragma unroll
    for (int j = 0; j < N; ++j) gate[j] *= sigmoid(gate[j]) * linear[j];
    store_pack<N>(out + i, gate);
  }
};

template <typename T>
struct SwigluBackwardBody {
  const T* x;
  const T* d_out;
  T* d_x;
  std::int64_t f;
  template <int N>
  struct Loaded {
    std::int64_t at;
    Pack<T, N> gate, linear, d_out;
  };
  template <int N>
  __device__ Loaded<N> load(std::int64_t i) const {
    const std::int64_t at = i + i / f * f;
    return {at, pack_at<N>(x + at), pack_at<N>(x + at + f), pack_at<N>(d_out + i)};
  }
  template <int N>
  __device__ void store(std::int64_t, const Loaded<N>& loaded) const {
    float gate[N], linear[N], gradient[N];
    unpack(gate, loaded.gate);
    unpack(linear, loaded.linear);
    unpack(gradient, loaded.d_out);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float s = sigmoid(gate[j]);
      const float d_linear = gradient[j] * gate[j] * s;
      gate[j] = gradient[j] * linear[j] * s * (1.0f + gate[j] * (1.0f - s));
      linear[j] = d_linear;
    }
    store_pack<N>(d_x + loaded.at, gate);
    store_pack<N>(d_x + loaded.at + f, linear);
  }
};

template <typename T, typename Formula>
void forward(const ActivationForward& call, bool packed, LaunchContext& context) {
  const ForwardBody<T, Formula> body{device_elements<T>(call.x), device_elements<T>(call.out)};
  with_pack<T>(packed,
               [&](auto n) { launch_elementwise<n()>(context, body, call.out.elements()); });
}

template <typename T, typename Formula>
void backward(const ActivationBackward& call, bool packed, LaunchContext& context) {
  const BackwardBody<T, Formula> body{device_elements<T>(call.x), device_elements<T>(call.d_out),
                                      device_elements<T>(call.d_x)};
  with_pack<T>(packed,
               [&](auto n) { launch_elementwise<n()>(context, body, call.d_out.elements()); });
}

}  // namespace

void compute(const ActivationForward& call, LaunchContext& context) {
  const std::int64_t f = call.out.size(1);
  with_device_type("activation_forward", call.out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const bool packed = packs_fit(kFullPack<T>, f, call.x, call.out);
    if (call.kind == Activation::Gelu) return forward<T, GeluFormula>(call, packed, context);
    if (call.kind == Activation::SquaredRelu)
      return forward<T, SquaredReluFormula>(call, packed, context);
    const SwigluForwardBody<T> body{device_elements<T>(call.x), device_elements<T>(call.out), f};
    with_pack<T>(packed,
                 [&](auto n) { launch_elementwise<n()>(context, body, call.out.elements()); });
  });
}

void compute(const ActivationBackward& call, LaunchContext& context) {
  const std::int64_t f = call.d_out.size(1);
  with_device_type("activation_backward", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const bool packed = packs_fit(kFullPack<T>, f, call.x, call.d_out, call.d_x);
    if (call.kind == Activation::Gelu) return backward<T, GeluFormula>(call, packed, context);
    if (call.kind == Activation::SquaredRelu)
      return backward<T, SquaredReluFormula>(call, packed, context);
    const SwigluBackwardBody<T> body{device_elements<T>(call.x), device_elements<T>(call.d_out),
                                     device_elements<T>(call.d_x), f};
    with_pack<T>(packed,
                 [&](auto n) { launch_elementwise<n()>(context, body, call.d_out.elements()); });
  });
}

}  // namespace rehearse
