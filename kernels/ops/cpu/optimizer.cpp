#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"

namespace rehearse {
namespace {

constexpr std::int64_t kGrain = 16384;

template <typename State, typename Gradient>
void adam(const AdamUpdate& call, std::int64_t begin, std::int64_t end) {
  State* master = elements_of<State>(call.master);
  State* first = elements_of<State>(call.first_moment);
  State* second = elements_of<State>(call.second_moment);
  const Gradient* gradient = elements_of<Gradient>(call.gradient);
  const double scale = call.gradient_scale.given()
                           ? static_cast<double>(elements_of<float>(call.gradient_scale)[0])
                           : 1.0;
  const double beta1 = call.beta1, beta2 = call.beta2, rate = call.learning_rate;
  const double decay = call.weight_decay;
  const auto step = static_cast<double>(call.step);
  const double unbias1 = 1.0 / (1.0 - std::pow(beta1, step));
  const double unbias2 = 1.0 / (1.0 - std::pow(beta2, step));
  for (std::int64_t i = begin; i < end; ++i) {
    double g = value(gradient[i]) * scale;
    if (!call.decoupled) g += decay * master[i];
    const double m = beta1 * first[i] + (1.0 - beta1) * g;
    const double v = beta2 * second[i] + (1.0 - beta2) * g * g;
    double update = m * unbias1 / (std::sqrt(v * unbias2) + call.epsilon);
    if (call.decoupled) update += decay * master[i];
    store(first[i], m);
    store(second[i], v);
    store(master[i], master[i] - rate * update);
  }
}

}  // namespace

void compute(const AdamUpdate& call, ThreadTeam& team) {
  const std::int64_t count = call.master.size(0);
  with_wide_type(call.master.dtype, [&](auto state) {
    with_float_type(call.gradient.dtype, [&](auto gradient) {
      using State = decltype(state);
      team.for_each_range(count, kGrain, [&](auto begin, auto end) {
        adam<State, decltype(gradient)>(call, begin, end);
        if (!call.parameter.given()) return;
        with_float_type(call.parameter.dtype, [&](auto tag) {
          auto* parameter = elements_of<decltype(tag)>(call.parameter);
          const State* master = elements_of<State>(call.master);
          for (std::int64_t i = begin; i < end; ++i) store(parameter[i], master[i]);
        });
      });
    });
  });
}

void compute(const SquaredSum& call, ThreadTeam& team) {
  const std::int64_t count = call.x.elements();
  // Pieces of fixed size, added in order: the sum does not depend on the number of threads.
  const std::int64_t pieces = (count + kGrain - 1) / kGrain;
  std::vector<double> sums(static_cast<std::size_t>(pieces));
  with_float_type(call.x.dtype, [&](auto tag) {
    const auto* x = elements_of<decltype(tag)>(call.x);
    team.for_each_range(pieces, 1, [&](auto begin, auto end) {
      for (std::int64_t piece = begin; piece < end; ++piece) {
        double sum = 0;
        for (std::int64_t i = piece * kGrain; i < std::min(count, (piece + 1) * kGrain); ++i)
          sum += static_cast<double>(value(x[i])) * value(x[i]);
        sums[static_cast<std::size_t>(piece)] = sum;
      }
    });
  });
  double& out = elements_of<double>(call.out)[0];
  double total = call.accumulate ? out : 0.0;
  for (const double sum : sums) total += sum;
  out = total;
}

void compute(const ClipFactor& call, ThreadTeam&) {
  const double norm = std::sqrt(elements_of<double>(call.squared_sum)[0]);
  const double wanted = static_cast<double>(call.max_norm) / (norm + 1e-6);
  store(elements_of<float>(call.factor)[0], wanted >= 1.0 ? 1.0 : wanted);  // NaN stays NaN
  if (call.norm.given()) store(elements_of<float>(call.norm)[0], norm);
}

void compute(const BucketCopy& call, ThreadTeam& team) {
  std::int64_t first = 0;
  for (const TensorView& tensor : call.tensors) {
    const std::int64_t count = tensor.elements();
    with_float_type(tensor.dtype, [&](auto one) {
      with_float_type(call.bucket.dtype, [&](auto two) {
        // Contiguous tensors are one long row.
        const bool is_flat = tensor.shape.contiguous();
        const std::int64_t width = is_flat ? count : tensor.shape.row_elements();
        const std::int64_t rows = count == 0 ? 0 : count / width;
        const std::int64_t grain = 1 + kGrain / (width + 1);
        const auto copy = [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
          auto* element = elements_of<decltype(one)>(tensor) + row * tensor.shape.stride;
          auto* flat = elements_of<decltype(two)>(call.bucket) + first + row * width;
          for (std::int64_t i = begin; i < end; ++i) {
            if (call.unpack)
              store(element[i], value(flat[i]));
            else
              store(flat[i], value(element[i]));
          }
        };
        if (is_flat) {
          team.for_each_range(count, kGrain, [&](auto begin, auto end) { copy(0, begin, end); });
        } else {
          team.for_each_range(rows, grain, [&](auto begin, auto end) {
            for (std::int64_t row = begin; row < end; ++row) copy(row, 0, width);
          });
        }
      });
    });
    first += count;
  }
}

void compute(const BucketReduce& call, ThreadTeam& team) {
  with_float_type(call.inputs.front().dtype, [&](auto from) {
    with_float_type(call.out.dtype, [&](auto to) {
      auto* out = elements_of<decltype(to)>(call.out);
      team.for_each_range(call.out.elements(), kGrain, [&](auto begin, auto end) {
        for (std::int64_t i = begin; i < end; ++i) {
          double sum = 0;
          for (const ConstTensorView& input : call.inputs)
            sum += value(elements_of<decltype(from)>(input)[i]);
          store(out[i], call.scale * sum);
        }
      });
    });
  });
}

}  // namespace rehearse
