// Joins what the same queries got from two sets of keys. Bound by memory: both results are read
// and one is written, and of each head of a token three statistics.
#include "kernels/cuda/elements.cuh"

namespace rehearse {
namespace {

template <typename A, typename B, typename Out>
struct JoinArguments {
  const A* a;
  const B* b;
  Out* out;
  const float* a_log_sum_exp;  // (heads, tokens); null where gradients are added
  const float* b_log_sum_exp;
  float* log_sum_exp;
  std::int64_t a_stride, b_stride, out_stride, tokens;
  int heads, d;
};

/// A thread takes N neighbours of a head; the first of a head writes its log-sum-exp.
template <int N, typename A, typename B, typename Out>
__global__ void __launch_bounds__(kElementwiseThreads)
    attention_join_kernel(JoinArguments<A, B, Out> call) {
  const int packs = call.d / N;
  const std::int64_t of_token = static_cast<std::int64_t>(call.heads) * packs;
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kElementwiseThreads + threadIdx.x;
  if (item >= call.tokens * of_token) return;
  const std::int64_t token = item / of_token;
  const int rest = static_cast<int>(item - token * of_token), head = rest / packs;
  const int column = rest * N;  // heads lie side by side
  const Pack<A, N> from_a = pack_at<N>(call.a + token * call.a_stride + column);
  const Pack<B, N> from_b = pack_at<N>(call.b + token * call.b_stride + column);
  float of_a = 1, of_b = 1;
  if (call.log_sum_exp != nullptr) {
    const std::int64_t at = head * call.tokens + token;
    const float a = call.a_log_sum_exp[at], b = call.b_log_sum_exp[at], top = fmaxf(a, b);
    const bool saw_none = top == -INFINITY;
    of_a = saw_none ? 0.0f : expf(a - top);
    of_b = saw_none ? 0.0f : expf(b - top);
    const float sum = of_a + of_b;
    if (rest % packs == 0) call.log_sum_exp[at] = saw_none ? top : top + logf(sum);
    of_a = saw_none ? 0.0f : of_a / sum;
    of_b = saw_none ? 0.0f : of_b / sum;
  }
  float left[N], right[N];
  unpack(left, from_a);
  unpack(right, from_b);
#pragma unroll
  for (int i = 0; i < N; ++i) left[i] = of_a * left[i] + of_b * right[i];
  store_pack<N>(call.out + token * call.out_stride + column, left);
}

/// fp32 or the narrow type: the running sum beside it.
template <typename Narrow, typename Body>
void with_either(DType dtype, const Body& body) {
  if (dtype == DType::F32)
    body(float{});
  else
    body(Narrow{});
}

}  // namespace

void compute(const AttentionJoin& call, LaunchContext& context) {
  const int d = int_size(call.b.size(2));
  with_device_type("attention_join", call.b.dtype, [&](auto of_b) {
    using B = decltype(of_b);
    with_either<B>(call.a.dtype, [&](auto of_a) {
      with_either<B>(call.out.dtype, [&](auto of_out) {
        using A = decltype(of_a);
        using Out = decltype(of_out);
        const JoinArguments<A, B, Out> arguments{
            .a = device_elements<A>(call.a),
            .b = device_elements<B>(call.b),
            .out = device_elements<Out>(call.out),
            .a_log_sum_exp = device_elements<float>(call.a_log_sum_exp),
            .b_log_sum_exp = device_elements<float>(call.b_log_sum_exp),
            .log_sum_exp = device_elements<float>(call.log_sum_exp),
            .a_stride = call.a.shape.stride,
            .b_stride = call.b.shape.stride,
            .out_stride = call.out.shape.stride,
            .tokens = call.b.size(0),
            .heads = int_size(call.b.size(1)),
            .d = d};
        constexpr bool kIsWide = sizeof(A) > sizeof(B) || sizeof(Out) > sizeof(B);
        using Wider = std::conditional_t<kIsWide, float, B>;
        with_pack<Wider>(packs_fit(kFullPack<Wider>, d, call.a, call.b, call.out), [&](auto n) {
          const std::int64_t items = arguments.tokens * arguments.heads * (d / n());
          launch(context,
                 {.grid = {blocks_for(items, kElementwiseThreads)}, .block = {kElementwiseThreads}},
                 attention_join_kernel<n(), A, B, Out>, arguments);
        });
      });
    });
  });
}

}  // namespace rehearse
