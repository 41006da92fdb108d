// Mixture of experts: router, sorting by expert, permutation and its inverse. Bound by memory:
// permute reads T·h and writes k·T·h elements, combine the reverse.
#include "kernels/cuda/reductions.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

/// One warp a token; lanes share the experts. Picks by the logits, as the CPU does.
__global__ void router_kernel(const float* logits, float* probabilities, std::int32_t* chosen,
                              float* weights, int tokens, int experts, int k, bool normalize) {
  const int t = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (t >= tokens) return;
  const float* row = logits + static_cast<std::int64_t>(t) * experts;
  float* probability = probabilities + static_cast<std::int64_t>(t) * experts;
  float maximum = -INFINITY, sum = 0;
  for (int e = lane; e < experts; e += 32) maximum = fmaxf(maximum, row[e]);
  maximum = warp_reduce(maximum, Larger{});
  for (int e = lane; e < experts; e += 32) sum += expf(row[e] - maximum);
  sum = warp_reduce(sum, Plus{});
  for (int e = lane; e < experts; e += 32) probability[e] = expf(row[e] - maximum) / sum;
  float taken = 0, last_logit = INFINITY;
  int last = -1;
  for (int slot = 0; slot < k; ++slot) {
    // The best expert after the last one taken: smaller logit, or the same and a higher index.
    float best = -INFINITY;
    int index = experts;
    for (int e = lane; e < experts; e += 32) {
      const bool is_left = row[e] < last_logit || (row[e] == last_logit && e > last);
      if (is_left && (row[e] > best || index == experts)) {
        best = row[e];
        index = e;
      }
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, best, mask);
      const int other_index = __shfl_xor_sync(kFullWarp, index, mask);
      const bool none = index == experts, takes = other_index != experts;
      if (takes && (none || other > best || (other == best && other_index < index))) {
        best = other;
        index = other_index;
      }
    }
    last_logit = best;
    last = index;
    const float p = expf(best - maximum) / sum;
    taken += p;
    if (lane == 0) {
      chosen[static_cast<std::int64_t>(t) * k + slot] = index;
      weights[static_cast<std::int64_t>(t) * k + slot] = p;
    }
  }
  __syncwarp();
  if (normalize && lane == 0)
    for (int slot = 0; slot < k; ++slot) weights[static_cast<std::int64_t>(t) * k + slot] /= taken;
}

struct RouterBackwardArguments {
  const float *probabilities, *d_weights, *d_probabilities;
  const std::int32_t* experts;
  float* d_logits;
  int tokens, expert_count, k;
  bool normalize;
};

/// One warp a token; formulas as on the CPU (kernels/ops/cpu/moe.cpp).
__global__ void router_backward_kernel(RouterBackwardArguments call) {
  const int t = static_cast<int>(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (t >= call.tokens) return;
  const std::int64_t row = static_cast<std::int64_t>(t) * call.expert_count;
  const std::int64_t slots = static_cast<std::int64_t>(t) * call.k;
  float sum = 0, product = 0;
  for (int s = 0; s < call.k; ++s) {
    const float p = call.probabilities[row + call.experts[slots + s]];
    sum += p;
    product += call.d_weights[slots + s] * p;
  }
  const auto slope = [&](int e) {
    float result = call.d_probabilities != nullptr ? call.d_probabilities[row + e] : 0.0f;
    for (int s = 0; s < call.k; ++s)
      if (call.experts[slots + s] == e)
        result += call.normalize ? (call.d_weights[slots + s] - product / sum) / sum
                                 : call.d_weights[slots + s];
    return result;
  };
  float mean = 0;
  for (int e = lane; e < call.expert_count; e += 32) mean += slope(e) * call.probabilities[row + e];
  mean = warp_reduce(mean, Plus{});
  for (int e = lane; e < call.expert_count; e += 32)
    call.d_logits[row + e] = call.probabilities[row + e] * (slope(e) - mean);
}

/// One block an expert: counts the pairs of lower experts, then gives its own their rows in order.
__global__ void __launch_bounds__(kThreads)
    moe_sort_kernel(const std::int32_t* experts, int pairs, int expert_count,
                    std::int32_t* destination, std::int32_t* offsets) {
  __shared__ int scratch[32];
  __shared__ int warp_count[kThreads / 32];
  const int mine = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32;
  int lower = 0;
  for (int i = thread; i < pairs; i += kThreads) lower += experts[i] < mine ? 1 : 0;
  int next = block_reduce(lower, Plus{}, 0, scratch);
  if (thread == 0) offsets[mine] = next;
  if (thread == 0 && mine == expert_count - 1) offsets[expert_count] = pairs;
  for (int first = 0; first < pairs; first += kThreads) {
    const int i = first + thread;
    const bool is_mine = i < pairs && experts[i] == mine;
    const unsigned votes = __ballot_sync(kFullWarp, is_mine);
    if (lane == 0) warp_count[warp] = __popc(votes);
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      before += w < warp ? warp_count[w] : 0;
      all += warp_count[w];
    }
    if (is_mine) destination[i] = next + before + __popc(votes & ((1u << lane) - 1u));
    next += all;
    __syncthreads();
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    permute_kernel(const T* x, const std::int32_t* destination, const float* weights, T* out, int k,
                   int h) {
  const std::int64_t pair = blockIdx.x;
  const T* from = x + pair / k * h;
  T* to = out + static_cast<std::int64_t>(destination[pair]) * h;
  const float weight = weights != nullptr ? weights[pair] : 1.0f;
  for (int j = static_cast<int>(threadIdx.x) * N; j < h; j += kThreads * N) {
    float value[N];
    load_pack<N>(value, from + j);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] *= weight;
    store_pack<N>(to + j, value);
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const T* x, const std::int32_t* destination, const float* weights, T* out, int k,
                   int h) {
  const std::int64_t t = blockIdx.x;
  for (int j = static_cast<int>(threadIdx.x) * N; j < h; j += kThreads * N) {
    float sum[N] = {};
    for (std::int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
      float value[N];
      load_pack<N>(value, x + static_cast<std::int64_t>(destination[pair]) * h + j);
      const float weight = weights != nullptr ? weights[pair] : 1.0f;
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += weight * value[i];
    }
    store_pack<N>(out + t * h + j, sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    weight_gradient_kernel(const T* d_out, const T* x, const std::int32_t* destination,
                           float* d_weights, int k, int h) {
  __shared__ float scratch[32];
  const std::int64_t pair = blockIdx.x;
  const T* gradient = d_out + pair / k * h;
  const T* row = x + static_cast<std::int64_t>(destination[pair]) * h;
  float sum = 0;
  for (int j = static_cast<int>(threadIdx.x); j < h; j += kThreads)
    sum += device_float(gradient[j]) * device_float(row[j]);
  sum = block_reduce(sum, Plus{}, 0.0f, scratch);
  if (threadIdx.x == 0) d_weights[pair] = sum;
}

/// The device routes in fp32.
void require_fp32(const char* name, const ConstTensorView& tensor) {
  if (tensor.dtype != DType::F32)
    throw OperatorError(std::string(name) + ": the device routes in fp32, not in " +
                        dtype_name(tensor.dtype));
}

}  // namespace

void compute(const RouterForward& call, LaunchContext& context) {
  require_fp32("router_forward", call.logits);
  const auto tokens = static_cast<int>(call.logits.size(0));
  launch(context, {.grid = {blocks_for(tokens, kThreads / 32)}, .block = {kThreads}}, router_kernel,
         device_elements<float>(call.logits), device_elements<float>(call.probabilities),
         device_elements<std::int32_t>(call.experts), device_elements<float>(call.weights), tokens,
         static_cast<int>(call.logits.size(1)), static_cast<int>(call.experts.size(1)),
         call.normalize);
}

void compute(const RouterBackward& call, LaunchContext& context) {
  require_fp32("router_backward", call.probabilities);
  const RouterBackwardArguments arguments{
      .probabilities = device_elements<float>(call.probabilities),
      .d_weights = device_elements<float>(call.d_weights),
      .d_probabilities = device_elements<float>(call.d_probabilities),
      .experts = device_elements<std::int32_t>(call.experts),
      .d_logits = device_elements<float>(call.d_logits),
      .tokens = static_cast<int>(call.probabilities.size(0)),
      .expert_count = static_cast<int>(call.probabilities.size(1)),
      .k = static_cast<int>(call.experts.size(1)),
      .normalize = call.normalize};
  launch(context, {.grid = {blocks_for(arguments.tokens, kThreads / 32)}, .block = {kThreads}},
         router_backward_kernel, arguments);
}

void compute(const MoeSort& call, LaunchContext& context) {
  const auto experts = static_cast<int>(call.offsets.size(0) - 1);
  launch(context, {.grid = {static_cast<unsigned>(experts)}, .block = {kThreads}}, moe_sort_kernel,
         device_elements<std::int32_t>(call.experts), static_cast<int>(call.experts.elements()),
         experts, device_elements<std::int32_t>(call.destination),
         device_elements<std::int32_t>(call.offsets));
}

void compute(const MoePermute& call, LaunchContext& context) {
  const auto h = static_cast<int>(call.x.size(1)), k = static_cast<int>(call.destination.size(1));
  with_device_type("moe_permute", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, h, call.x, call.out), [&](auto n) {
      launch(context,
             {.grid = {static_cast<unsigned>(call.destination.elements())}, .block = {kThreads}},
             permute_kernel<n(), T>, device_elements<T>(call.x),
             device_elements<std::int32_t>(call.destination), device_elements<float>(call.weights),
             device_elements<T>(call.out), k, h);
    });
  });
}

void compute(const MoeCombine& call, LaunchContext& context) {
  const auto h = static_cast<int>(call.x.size(1)), k = static_cast<int>(call.destination.size(1));
  with_device_type("moe_combine", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, h, call.x, call.out), [&](auto n) {
      launch(context, {.grid = {static_cast<unsigned>(call.out.size(0))}, .block = {kThreads}},
             combine_kernel<n(), T>, device_elements<T>(call.x),
             device_elements<std::int32_t>(call.destination), device_elements<float>(call.weights),
             device_elements<T>(call.out), k, h);
    });
  });
}

void compute(const MoeWeightGradient& call, LaunchContext& context) {
  const auto h = static_cast<int>(call.x.size(1)), k = static_cast<int>(call.destination.size(1));
  with_device_type("moe_weight_gradient", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(context,
           {.grid = {static_cast<unsigned>(call.destination.elements())}, .block = {kThreads}},
           weight_gradient_kernel<T>, device_elements<T>(call.d_out), device_elements<T>(call.x),
           device_elements<std::int32_t>(call.destination), device_elements<float>(call.d_weights),
           k, h);
  });
}

}  // namespace rehearse
