// Matrix products on the CPU through an operator call, beside OpenBLAS called bare: what the call
// costs is what the first takes longer. One thread; a layer of GPT-2 124M and odd sizes around it.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <vector>

#include "kernels/ops/compute_device.h"

namespace rehearse {
namespace {

/// Which operand is turned in a linear layer's three products; the first also with its bias.
enum Layout : std::int64_t { kForward, kDataGradient, kWeightGradient, kForwardWithBias };

bool turns_b(std::int64_t layout) { return layout == kForward || layout == kForwardWithBias; }

struct Operands {
  Operands(std::int64_t m, std::int64_t n, std::int64_t k)
      : a(static_cast<std::size_t>(m * k), 0.5f),
        b(static_cast<std::size_t>(k * n), 0.25f),
        out(static_cast<std::size_t>(m * n), 0.0f),
        bias(static_cast<std::size_t>(n), 0.125f) {}
  std::vector<float> a, b, out, bias;
};

void report(benchmark::State& state) {
  const double flops = 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2));
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void through_a_call(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const bool turn_a = state.range(3) == kWeightGradient, turn_b = turns_b(state.range(3));
  Operands x(m, n, k);
  const auto device = cpu_device(1);
  const ConstTensorView a(x.a.data(), DType::F32, turn_a ? TensorShape{k, m} : TensorShape{m, k});
  const ConstTensorView b(x.b.data(), DType::F32, turn_b ? TensorShape{n, k} : TensorShape{k, n});
  Gemm call{.a = a,
            .b = b,
            .out = {x.out.data(), DType::F32, {m, n}},
            .transpose_a = turn_a,
            .transpose_b = turn_b};
  if (state.range(3) == kForwardWithBias) {
    call.epilogue = Epilogue::Bias;
    call.bias = ConstTensorView(x.bias.data(), DType::F32, {n});
  }
  for (auto _ : state) device->run(call);
  report(state);
}

void openblas_bare(benchmark::State& state) {
  const auto m = static_cast<int>(state.range(0)), n = static_cast<int>(state.range(1)),
             k = static_cast<int>(state.range(2));
  const bool turn_a = state.range(3) == kWeightGradient, turn_b = turns_b(state.range(3));
  Operands x(m, n, k);
  openblas_set_num_threads(1);
  for (auto _ : state)
    cblas_sgemm(CblasRowMajor, turn_a ? CblasTrans : CblasNoTrans,
                turn_b ? CblasTrans : CblasNoTrans, m, n, k, 1.0f, x.a.data(), turn_a ? m : k,
                x.b.data(), turn_b ? k : n, 0.0f, x.out.data(), n);
  report(state);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"m", "n", "k", "layout"})->Unit(benchmark::kMicrosecond);
  for (const std::int64_t layout : {kForward, kDataGradient, kWeightGradient, kForwardWithBias}) {
    bench->Args({512, 2304, 768, layout});
    bench->Args({2048, 1024, 256, layout});
    bench->Args({129, 769, 255, layout});
    bench->Args({16, 64, 64, layout});
  }
}

BENCHMARK(through_a_call)->Apply(shapes);
BENCHMARK(openblas_bare)->Apply(shapes);

}  // namespace
}  // namespace rehearse

BENCHMARK_MAIN();
