// Mixture of experts: router, sorting by expert, permutation and its inverse. Bound by memory:
// permute reads T·h and writes k·T·h elements, combine the reverse.
#include "kernels/cuda/rows.cuh"

namespace rehearse {
namespace {

constexpr int kThreads = 256;

/// Logits as integers of the same order, 0 below all of them: −0 is +0, NaN is above +∞, as in
/// PyTorch's topk. Every token then has k experts, whatever its logits.
__device__ __forceinline__ std::uint32_t rank_of(float logit) {
  if (logit != logit) return ~std::uint32_t{0};
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

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
  float taken = 0;
  std::uint32_t last_rank = ~std::uint32_t{0};
  int last = -1;
  for (int slot = 0; slot < k; ++slot) {
    // The best expert after the last one taken: lower rank, or the same and a higher index.
    std::uint32_t best = 0;
    int index = experts;
    for (int e = lane; e < experts; e += 32) {
      const std::uint32_t rank = rank_of(row[e]);
      const bool is_left = rank < last_rank || (rank == last_rank && e > last);
      if (is_left && rank > best) {
        best = rank;
        index = e;
      }
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      const std::uint32_t other = __shfl_xor_sync(kFullWarp, best, mask);
      const int other_index = __shfl_xor_sync(kFullWarp, index, mask);
      if (other > best || (other == best && other_index < index)) {
        best = other;
        index = other_index;
      }
    }
    last_rank = best;
    last = index;
    const float p = expf(row[index] - maximum) / sum;
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

constexpr int kSortThreads = 1024;
constexpr int kSortPairs = 4;  // neighbours that a thread takes at a time

/// The experts of kSortPairs neighbours, −1 past the end: all loads are under way together.
__device__ __forceinline__ void load_pairs(std::int32_t (&expert)[kSortPairs],
                                           const std::int32_t* experts, std::int64_t first,
                                           std::int64_t pairs) {
#pragma unroll
  for (int i = 0; i < kSortPairs; ++i) expert[i] = first + i < pairs ? experts[first + i] : -1;
}

/// One block an expert: counts the pairs of lower experts, then gives its own their rows in order.
__global__ void __launch_bounds__(kSortThreads)
    moe_sort_kernel(const std::int32_t* experts, std::int64_t pairs, int expert_count,
                    std::int32_t* destination, std::int32_t* offsets) {
  __shared__ int scratch[32];
  __shared__ int warp_count[kSortThreads / 32];
  const int mine = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32;
  constexpr int kRound = kSortThreads * kSortPairs;
  std::int32_t expert[kSortPairs];
  int lower = 0;
  for (std::int64_t first = 0; first < pairs; first += kRound) {
    load_pairs(expert, experts, first + thread * kSortPairs, pairs);
#pragma unroll
    for (int i = 0; i < kSortPairs; ++i) lower += expert[i] >= 0 && expert[i] < mine ? 1 : 0;
  }
  int next = block_reduce(lower, Plus{}, 0, scratch);
  if (thread == 0) offsets[mine] = next;
  if (thread == 0 && mine == expert_count - 1) offsets[expert_count] = static_cast<int>(pairs);
  for (std::int64_t first = 0; first < pairs; first += kRound) {
    load_pairs(expert, experts, first + thread * kSortPairs, pairs);
    int count = 0;
#pragma unroll
    for (int i = 0; i < kSortPairs; ++i) count += expert[i] == mine ? 1 : 0;
    int up_to = count;  // of this thread and the lanes before it
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_sync(kFullWarp, up_to, lane < distance ? lane : lane - distance);
      up_to += lane < distance ? 0 : before;
    }
    if (lane == 31) warp_count[warp] = up_to;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < kSortThreads / 32; ++w) {
      before += w < warp ? warp_count[w] : 0;
      all += warp_count[w];
    }
    int row = next + before + up_to - count;
#pragma unroll
    for (int i = 0; i < kSortPairs; ++i)
      if (expert[i] == mine) destination[first + thread * kSortPairs + i] = row++;
    next += all;
    __syncthreads();
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kRowThreads)
    permute_kernel(const T* x, const std::int32_t* destination, const float* weights, T* out,
                   std::int64_t pairs, int k, int h) {
  const std::int64_t pair = thread_row();
  if (pair >= pairs) return;
  const T* from = x + pair / k * h;
  T* to = out + static_cast<std::int64_t>(destination[pair]) * h;
  const float weight = weights != nullptr ? weights[pair] : 1.0f;
  row_pass<N>(
      h, [&](int j) { return pack_at<N>(from + j); },
      [&](int j, const Pack<T, N>& loaded) {
        float value[N];
        unpack(value, loaded);
#pragma unroll
        for (int i = 0; i < N; ++i) value[i] *= weight;
        store_pack<N>(to + j, value);
      });
}

template <int N, typename T>
__global__ void __launch_bounds__(kRowThreads, 3)
    combine_kernel(const T* x, const std::int32_t* destination, const float* weights, T* out,
                   std::int64_t tokens, int k, int h) {
  const std::int64_t t = thread_row();
  if (t >= tokens) return;
  const int step = static_cast<int>(blockDim.x) * N;
  for (int first = static_cast<int>(threadIdx.x) * N; first < h; first += step * kRowPacks) {
    float sum[kRowPacks][N] = {};
    // A row's packs are under way together; those of a second row do not fit the registers.
#pragma unroll 1
    for (std::int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
      const T* row = x + static_cast<std::int64_t>(destination[pair]) * h + first;
      const float weight = weights != nullptr ? weights[pair] : 1.0f;
      Pack<T, N> loaded[kRowPacks] = {};
#pragma unroll
      for (int p = 0; p < kRowPacks; ++p)
        if (first + p * step < h) loaded[p] = pack_at<N>(row + p * step);
#pragma unroll
      for (int p = 0; p < kRowPacks; ++p)
#pragma unroll
        for (int i = 0; i < N; ++i) sum[p][i] += weight * device_float(loaded[p].element[i]);
    }
#pragma unroll
    for (int p = 0; p < kRowPacks; ++p)
      if (first + p * step < h) store_pack<N>(out + t * h + first + p * step, sum[p]);
  }
}

template <int N, typename T>
__global__ void __launch_bounds__(kRowThreads)
    weight_gradient_kernel(const T* d_out, const T* x, const std::int32_t* destination,
                           float* d_weights, std::int64_t pairs, int k, int h) {
  struct Both {
    Pack<T, N> gradient, value;
  };
  __shared__ float scratch[32];
  const std::int64_t pair = thread_row();
  const bool exists = pair < pairs;
  const T* gradient = d_out + pair / k * h;
  const T* row = x + (exists ? static_cast<std::int64_t>(destination[pair]) : 0) * h;
  float sum = 0;
  row_pass<N>(
      exists ? h : 0,
      [&](int j) {
        return Both{pack_at<N>(gradient + j), pack_at<N>(row + j)};
      },
      [&](int, const Both& both) {
#pragma unroll
        for (int i = 0; i < N; ++i)
          sum += device_float(both.gradient.element[i]) * device_float(both.value.element[i]);
      });
  sum = row_reduce(sum, Plus{}, 0.0f, scratch);
  if (exists && threadIdx.x == 0) d_weights[pair] = sum;
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
  const auto tokens = int_size(call.logits.size(0));
  launch(context, {.grid = {blocks_for(tokens, kThreads / 32)}, .block = {kThreads}}, router_kernel,
         device_elements<float>(call.logits), device_elements<float>(call.probabilities),
         device_elements<std::int32_t>(call.experts), device_elements<float>(call.weights), tokens,
         int_size(call.logits.size(1)), int_size(call.experts.size(1)), call.normalize);
}

void compute(const RouterBackward& call, LaunchContext& context) {
  require_fp32("router_backward", call.probabilities);
  const RouterBackwardArguments arguments{
      .probabilities = device_elements<float>(call.probabilities),
      .d_weights = device_elements<float>(call.d_weights),
      .d_probabilities = device_elements<float>(call.d_probabilities),
      .experts = device_elements<std::int32_t>(call.experts),
      .d_logits = device_elements<float>(call.d_logits),
      .tokens = int_size(call.probabilities.size(0)),
      .expert_count = int_size(call.probabilities.size(1)),
      .k = int_size(call.experts.size(1)),
      .normalize = call.normalize};
  launch(context, {.grid = {blocks_for(arguments.tokens, kThreads / 32)}, .block = {kThreads}},
         router_backward_kernel, arguments);
}

void compute(const MoeSort& call, LaunchContext& context) {
  const auto experts = int_size(call.offsets.size(0) - 1);
  launch(context, {.grid = {static_cast<unsigned>(experts)}, .block = {kSortThreads}},
         moe_sort_kernel, device_elements<std::int32_t>(call.experts), call.experts.elements(),
         experts, device_elements<std::int32_t>(call.destination),
         device_elements<std::int32_t>(call.offsets));
}

void compute(const MoePermute& call, LaunchContext& context) {
  const auto h = int_size(call.x.size(1)), k = int_size(call.destination.size(1));
  const std::int64_t pairs = call.destination.elements();
  with_device_type("moe_permute", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, h, call.x, call.out), [&](auto n) {
      launch(context, row_launch(pairs, h / n()), permute_kernel<n(), T>,
             device_elements<T>(call.x), device_elements<std::int32_t>(call.destination),
             device_elements<float>(call.weights), device_elements<T>(call.out), pairs, k, h);
    });
  });
}

void compute(const MoeCombine& call, LaunchContext& context) {
  const auto h = int_size(call.x.size(1)), k = int_size(call.destination.size(1));
  const std::int64_t tokens = call.out.size(0);
  with_device_type("moe_combine", call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, h, call.x, call.out), [&](auto n) {
      launch(context, row_launch(tokens, h / n()), combine_kernel<n(), T>,
             device_elements<T>(call.x), device_elements<std::int32_t>(call.destination),
             device_elements<float>(call.weights), device_elements<T>(call.out), tokens, k, h);
    });
  });
}

void compute(const MoeWeightGradient& call, LaunchContext& context) {
  const auto h = int_size(call.x.size(1)), k = int_size(call.destination.size(1));
  const std::int64_t pairs = call.destination.elements();
  with_device_type("moe_weight_gradient", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(packs_fit(kFullPack<T>, h, call.d_out, call.x), [&](auto n) {
      launch(context, row_launch(pairs, h / n()), weight_gradient_kernel<n(), T>,
             device_elements<T>(call.d_out), device_elements<T>(call.x),
             device_elements<std::int32_t>(call.destination),
             device_elements<float>(call.d_weights), pairs, k, h);
    });
  });
}

}  // namespace rehearse
