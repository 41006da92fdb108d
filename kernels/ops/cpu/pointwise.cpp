#include <algorithm>
#include <cmath>

#include "kernels/ops/cpu/activation_formulas.h"
#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/elements.h"
#include "kernels/ops/philox.h"

namespace rehearse {
namespace {

constexpr std::int64_t kGrain = 16384;  // elements below which a second thread does not pay

/// Calls body(i) for each element, in ranges on the team's threads.
template <typename Body>
void each_element(std::int64_t count, ThreadTeam& team, const Body& body) {
  team.for_each_range(count, kGrain, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

void compute(const Rope& call, ThreadTeam& team) {
  const std::int64_t tokens = call.x.size(0), heads = call.x.size(1), d = call.x.size(2);
  const std::int64_t table_rows = call.cosine_sine.size(0);
  with_float_type(call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using Table = std::conditional_t<std::is_same_v<T, double>, double, float>;
    team.for_each_range(tokens, 1 + kGrain / (heads * d + 1), [&](auto begin, auto end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t position = elements_of<std::int32_t>(call.positions)[t];
        if (position < 0 || position >= table_rows)
          throw OperatorError("rope: position " + std::to_string(position) +
                              " lies outside the table of " + std::to_string(table_rows));
        const Table* cosine = elements_of<Table>(call.cosine_sine) + position * d;
        const Table* sine = cosine + d / 2;
        for (std::int64_t head = 0; head < heads; ++head) {
          T* x = elements_of<T>(call.x) + t * call.x.shape.stride + head * d;
          for (std::int64_t i = 0; i < d / 2; ++i) {
            const double first = value(x[i]), second = value(x[i + d / 2]);
            const double turn = call.inverse ? -sine[i] : sine[i];
            store(x[i], first * cosine[i] - second * turn);
            store(x[i + d / 2], second * cosine[i] + first * turn);
          }
        }
      }
    });
  });
}

void compute(const ActivationForward& call, ThreadTeam& team) {
  const std::int64_t f = call.out.size(1);
  with_float_type(call.out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = elements_of<T>(call.x);
    T* out = elements_of<T>(call.out);
    each_element(call.out.elements(), team, [&](std::int64_t i) {
      switch (call.kind) {
        case Activation::Gelu:
          return store(out[i], gelu(value(x[i])));
        case Activation::SquaredRelu: {
          const auto positive = value(x[i]) <= 0 ? 0 : value(x[i]);
          return store(out[i], positive * positive);
        }
        case Activation::Swiglu: {
          const T* gate = x + i / f * 2 * f + i % f;
          return store(out[i], silu(value(gate[0])) * value(gate[f]));
        }
      }
    });
  });
}

void compute(const ActivationBackward& call, ThreadTeam& team) {
  const std::int64_t f = call.d_out.size(1);
  with_float_type(call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = elements_of<T>(call.x);
    const T* d_out = elements_of<T>(call.d_out);
    T* d_x = elements_of<T>(call.d_x);
    each_element(call.d_out.elements(), team, [&](std::int64_t i) {
      const auto g = value(d_out[i]);
      switch (call.kind) {
        case Activation::Gelu:
          return store(d_x[i], g * gelu_slope(value(x[i])));
        case Activation::SquaredRelu: {
          const auto positive = value(x[i]) <= 0 ? 0 : value(x[i]);
          return store(d_x[i], g * 2 * positive);
        }
        case Activation::Swiglu: {
          const std::int64_t at = i / f * 2 * f + i % f;
          const auto gate = value(x[at]), linear = value(x[at + f]);
          store(d_x[at], g * linear * silu_slope(gate));
          return store(d_x[at + f], g * silu(gate));
        }
      }
    });
  });
}

void compute(const Add& call, ThreadTeam& team) {
  with_float_type(call.out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* a = elements_of<T>(call.a);
    const T* b = elements_of<T>(call.b);
    T* out = elements_of<T>(call.out);
    each_element(call.out.elements(), team,
                 [&](std::int64_t i) { store(out[i], value(a[i]) + value(b[i])); });
  });
}

void compute(const DropoutForward& call, ThreadTeam& team) {
  const std::int64_t count = call.x.elements();
  const std::uint32_t threshold = dropout_threshold(call.probability);
  const PhiloxKeys keys = philox_keys(call.seed);
  const float keep_scale = 1.0f / (1.0f - call.probability);
  with_float_type(call.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = elements_of<T>(call.x);
    const T* residual = call.residual.given() ? elements_of<T>(call.residual) : nullptr;
    T* out = elements_of<T>(call.out);
    auto* mask = elements_of<std::uint8_t>(call.mask);
    team.for_each_range((count + 3) / 4, kGrain / 4, [&](auto begin, auto end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const PhiloxBlock words = philox(call.offset / 4 + static_cast<std::uint64_t>(block), keys);
        for (std::int64_t i = 4 * block; i < std::min(count, 4 * block + 4); ++i) {
          mask[i] = words.word[i % 4] >= threshold ? 1 : 0;
          const auto kept = mask[i] != 0 ? value(x[i]) * keep_scale : 0;
          store(out[i], residual != nullptr ? value(residual[i]) + kept : kept);
        }
      }
    });
  });
}

void compute(const DropoutBackward& call, ThreadTeam& team) {
  const float keep_scale = 1.0f / (1.0f - call.probability);
  with_float_type(call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* d_out = elements_of<T>(call.d_out);
    const auto* mask = elements_of<std::uint8_t>(call.mask);
    T* d_x = elements_of<T>(call.d_x);
    each_element(call.d_out.elements(), team, [&](std::int64_t i) {
      store(d_x[i], mask[i] != 0 ? value(d_out[i]) * keep_scale : 0);
    });
  });
}

void compute(const Cast& call, ThreadTeam& team) {
  const float scale = call.scale.given() ? elements_of<float>(call.scale)[0] : 1.0f;
  // The reciprocal is rounded to fp32, as on every device: the same codes, ties included.
  const double factor = static_cast<double>(call.x.dtype == DType::F8E4m3 ? scale : 1.0f) *
                        static_cast<double>(call.out.dtype == DType::F8E4m3 ? 1.0f / scale : 1.0f);
  with_float_type(call.x.dtype, [&](auto from) {
    with_float_type(call.out.dtype, [&](auto to) {
      const auto* x = elements_of<decltype(from)>(call.x);
      auto* out = elements_of<decltype(to)>(call.out);
      each_element(call.x.elements(), team,
                   [&](std::int64_t i) { store(out[i], factor * value(x[i])); });
    });
  });
}

void compute(const Scale& call, ThreadTeam& team) {
  const float factor = elements_of<float>(call.factor)[0];
  with_float_type(call.x.dtype, [&](auto tag) {
    auto* x = elements_of<decltype(tag)>(call.x);
    each_element(call.x.elements(), team,
                 [&](std::int64_t i) { store(x[i], value(x[i]) * factor); });
  });
}

}  // namespace rehearse
