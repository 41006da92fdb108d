// What a matrix product does with its result, as kernels of their own: where cuBLASLt's fused
// epilogues do not take a call's types or alignment.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/epilogue.h"

namespace rehearse {
namespace {

struct EpilogueArguments {
  void *out, *pre_activation;
  const void* bias;
  std::int64_t stride;
  int columns;
  Epilogue epilogue;
};

// GeLU's formulas are kernels/ops/cpu/activation_formulas.h's, in fp32.
constexpr float kTwiceSqrtTwoOverPi = 1.5957691216057308f;
__device__ float gelu_gate(float x) {
  return 1.0f / (1.0f + __expf(-kTwiceSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
}

template <typename T, typename B>
__global__ void epilogue_kernel(EpilogueArguments call) {
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (column >= call.columns) return;
  const std::int64_t row = blockIdx.x;
  T& element = static_cast<T*>(call.out)[row * call.stride + column];
  T* saved = static_cast<T*>(call.pre_activation) + row * call.columns + column;
  float x = device_float(element);
  if (call.bias != nullptr) x += device_float(static_cast<const B*>(call.bias)[column]);
  if (call.epilogue == Epilogue::BiasGelu) {
    device_store(*saved, x);
    x *= gelu_gate(x);
  } else if (call.epilogue == Epilogue::GeluGradient) {
    const float y = device_float(*saved), s = gelu_gate(y);
    x *= s + y * s * (1.0f - s) * kTwiceSqrtTwoOverPi * (1.0f + 3 * 0.044715f * y * y);
  }
  device_store(element, x);
}

template <typename T>
__global__ void clear_kernel(T* out, std::int64_t stride, int columns) {
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (column < columns) device_store(out[blockIdx.x * stride + column], 0.0f);
}

constexpr int kThreads = 128;

/// Rows along x, the one direction of a grid that takes more than 65,535 blocks.
LaunchShape blocks_of_rows(const TensorView& out) {
  return {.grid = {static_cast<unsigned>(out.size(0)), blocks_for(out.size(1), kThreads)},
          .block = {kThreads}};
}

}  // namespace

void apply_epilogue(const Gemm& call, LaunchContext& context) {
  const EpilogueArguments arguments{.out = call.out.data,
                                    .pre_activation = call.pre_activation.data,
                                    .bias = call.bias.data,
                                    .stride = call.out.shape.stride,
                                    .columns = int_size(call.out.size(1)),
                                    .epilogue = call.epilogue};
  with_device_type("gemm", call.out.dtype, [&](auto t) {
    with_device_type("gemm", call.bias.given() ? call.bias.dtype : DType::F32, [&](auto b) {
      launch(context, blocks_of_rows(call.out), epilogue_kernel<decltype(t), decltype(b)>,
             arguments);
    });
  });
}

void clear_matrix(const TensorView& out, LaunchContext& context) {
  with_device_type("gemm", out.dtype, [&](auto t) {
    using T = decltype(t);
    launch(context, blocks_of_rows(out), clear_kernel<T>, device_elements<T>(out), out.shape.stride,
           static_cast<int>(out.size(1)));
  });
}

}  // namespace rehearse
