#include <cmath>
#include <limits>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

/// What a and b count in the result, and its log-sum-exp.
struct Weights {
  double a = 1, b = 1, log_sum_exp = 0;
};

Weights weights_of(double a, double b) {
  const double top = std::max(a, b);
  if (top == -std::numeric_limits<double>::infinity()) return {0, 0, top};
  const double of_a = std::exp(a - top), of_b = std::exp(b - top), sum = of_a + of_b;
  return {of_a / sum, of_b / sum, top + std::log(sum)};
}

template <typename A, typename B, typename Out, typename Wide>
void join_token(const AttentionJoin& call, std::int64_t token) {
  const std::int64_t tokens = call.b.size(0), heads = call.b.size(1), d = call.b.size(2);
  for (std::int64_t head = 0; head < heads; ++head) {
    Weights weights;
    if (call.log_sum_exp.given()) {
      const std::int64_t at = head * tokens + token;
      weights = weights_of(elements_of<Wide>(call.a_log_sum_exp)[at],
                           elements_of<Wide>(call.b_log_sum_exp)[at]);
      store(elements_of<Wide>(call.log_sum_exp)[at], weights.log_sum_exp);
    }
    const A* a = elements_of<A>(call.a) + token * call.a.shape.stride + head * d;
    const B* b = elements_of<B>(call.b) + token * call.b.shape.stride + head * d;
    Out* out = elements_of<Out>(call.out) + token * call.out.shape.stride + head * d;
    for (std::int64_t i = 0; i < d; ++i)
      store(out[i], weights.a * value(a[i]) + weights.b * value(b[i]));
  }
}

/// Calls body with a value of the element type that belongs to `dtype`, one of the two.
template <typename Narrow, typename Wide, typename Body>
void with_either(bool is_narrow, const Body& body) {
  if (is_narrow)
    body(Narrow{});
  else
    body(Wide{});
}

}  // namespace

void compute(const AttentionJoin& call, ThreadTeam& team) {
  constexpr std::int64_t kGrain = 4096;  // elements below which a second thread does not pay
  const std::int64_t tokens = call.b.size(0);
  const std::int64_t grain = 1 + kGrain / (call.b.shape.row_elements() + 1);
  with_float_type(call.b.dtype, [&](auto b) {
    using B = decltype(b);
    using Wide = std::conditional_t<std::is_same_v<B, double>, double, float>;
    with_either<B, Wide>(call.a.dtype == call.b.dtype, [&](auto a) {
      with_either<B, Wide>(call.out.dtype == call.b.dtype, [&](auto out) {
        team.for_each_range(tokens, grain, [&](auto begin, auto end) {
          for (std::int64_t token = begin; token < end; ++token)
            join_token<decltype(a), B, decltype(out), Wide>(call, token);
        });
      });
    });
  });
}

}  // namespace rehearse
