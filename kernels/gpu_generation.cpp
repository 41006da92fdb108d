#include "kernels/gpu_generation.h"

#include <cstdint>

namespace rehearse {
namespace {

// Products in 16 bits: fits to some 30,000 measured cuBLAS shapes a GPU (n, k ≥ 128) of the
// performance database of ai-dynamo/aiconfigurator (commit 095f58a5), with the data-sheet rates
// 312, 989, 2250, 2500 and 362 TFLOP/s and 2.039, 3.35, 4.8, 7.7, 8 and 0.864 TB/s.
constexpr GemmConstants kA100Gemm{.start_s = 3.22e-6,
                                  .efficiency = 0.907,
                                  .bandwidth = 0.723,
                                  .tile_s = 2.16e-6,
                                  .intensity = 5.8,
                                  .sharpness = 2.30,
                                  .split_s = 1.97e-6,
                                  .relative_error = 0.09};
constexpr GemmConstants kH100Gemm{.start_s = 3.15e-6,
                                  .efficiency = 0.826,
                                  .bandwidth = 0.869,
                                  .tile_s = 0.01e-6,
                                  .intensity = 0,
                                  .sharpness = 2.31,
                                  .split_s = 2.91e-6,
                                  .relative_error = 0.09};
constexpr GemmConstants kH200Gemm{.start_s = 3.26e-6,
                                  .efficiency = 0.819,
                                  .bandwidth = 0.835,
                                  .tile_s = 0.01e-6,
                                  .intensity = 0,
                                  .sharpness = 2.27,
                                  .split_s = 2.60e-6,
                                  .relative_error = 0.09};
constexpr GemmConstants kB200Gemm{.start_s = 2.17e-6,
                                  .efficiency = 1.30,
                                  .bandwidth = 0.792,
                                  .tile_s = 0.34e-6,
                                  .intensity = 52,
                                  .sharpness = 3.04,
                                  .split_s = 4.08e-6,
                                  .relative_error = 0.12};
constexpr GemmConstants kGb200Gemm{.start_s = 2.32e-6,
                                   .efficiency = 1.30,
                                   .bandwidth = 0.793,
                                   .tile_s = 0.16e-6,
                                   .intensity = 54,
                                   .sharpness = 2.85,
                                   .split_s = 3.40e-6,
                                   .relative_error = 0.13};
constexpr GemmConstants kL40sGemm{.start_s = 0.10e-6,
                                  .efficiency = 0.717,
                                  .bandwidth = 0.801,
                                  .tile_s = 2.83e-6,
                                  .intensity = 2.6,
                                  .sharpness = 9.8,
                                  .split_s = 1.05e-6,
                                  .relative_error = 0.165};

// The same formula fitted to the same database's fp8 products (scaled per tensor) at 1979, 1979,
// 4500 and 733 TFLOP/s.
constexpr GemmConstants kH100Fp8{.start_s = 4.96e-6,
                                 .efficiency = 0.827,
                                 .bandwidth = 0.756,
                                 .tile_s = 0.26e-6,
                                 .intensity = 55.0,
                                 .sharpness = 4.41,
                                 .split_s = 36.08e-6,
                                 .relative_error = 0.20};
constexpr GemmConstants kH200Fp8{.start_s = 5.29e-6,
                                 .efficiency = 0.893,
                                 .bandwidth = 0.743,
                                 .tile_s = 0.37e-6,
                                 .intensity = 53.7,
                                 .sharpness = 3.53,
                                 .split_s = 44.19e-6,
                                 .relative_error = 0.22};
constexpr GemmConstants kB200Fp8{.start_s = 5.45e-6,
                                 .efficiency = 0.794,
                                 .bandwidth = 0.721,
                                 .tile_s = 0.85e-6,
                                 .intensity = 60.0,
                                 .sharpness = 5.33,
                                 .split_s = 29.64e-6,
                                 .relative_error = 0.25};
constexpr GemmConstants kL40sFp8{.start_s = 0,
                                 .efficiency = 0.538,
                                 .bandwidth = 0.718,
                                 .tile_s = 5.60e-6,
                                 .intensity = 3.9,
                                 .sharpness = 2.56,
                                 .split_s = 12.93e-6,
                                 .relative_error = 0.24};

// Causal attention of the same database: FlashAttention 2 on A100, 3 on Hopper, TensorRT-LLM's on
// B200; errors are those of kernels above 100 GFLOP. A100 was measured at head size 128 only; its
// rate at 64 is 170/190 of that (Dao 2023, arXiv 2307.08691, figure 5).
constexpr AttentionConstants kA100Attention{.efficiency_128 = 0.684,
                                            .efficiency_64 = 0.612,
                                            .tail_tiles = 0.79,
                                            .wave_s = 0,
                                            .bandwidth = 0.72,
                                            .relative_error = 0.04};
constexpr AttentionConstants kH100Attention{.efficiency_128 = 0.69,
                                            .efficiency_64 = 0.55,
                                            .tail_tiles = 0.14,
                                            .wave_s = 0,
                                            .bandwidth = 0.487,
                                            .relative_error = 0.05};
constexpr AttentionConstants kH200Attention{.efficiency_128 = 0.68,
                                            .efficiency_64 = 0.542,
                                            .tail_tiles = 0.09,
                                            .wave_s = 0,
                                            .bandwidth = 0.379,
                                            .relative_error = 0.05};
constexpr AttentionConstants kBlackwellAttention{.efficiency_128 = 0.58,
                                                 .efficiency_64 = 0.379,
                                                 .tail_tiles = 0.53,
                                                 .wave_s = 3.38e-6,
                                                 .bandwidth = 0.385,
                                                 .relative_error = 0.04};

// Shares of clocks in a long step relative to the short bursts above: Hopper ran a product of
// 10 ms at 690 TFLOP/s in one collection and 790 in another, B200 61 products in a sustained loop
// at 0.74 of their burst rate; A100 stays near its boost clock. From those alone one would judge
// 0.95, 0.90 and 0.75. Whole training steps are longer than any of these loops: the published bf16
// steps of GPT-3 175B and Nemotron-4 15B on H100 (DGX Cloud recipes, release 25.02) ask for 0.83,
// those of Llama 3 70B's layers on B200 (SimuMax, release 1.2) for 0.69. These two are fitted to
// whole runs; A100's is not.
constexpr double kA100Sustained = 0.95, kHopperSustained = 0.83, kBlackwellSustained = 0.69;

const GpuGeneration kA100{.name = "A100",
                          .fitted = true,
                          .gemm = kA100Gemm,
                          .gemm_fp8 = kA100Gemm,
                          .attention = kA100Attention,
                          .sustained = kA100Sustained};
const GpuGeneration kH100{.name = "H100",
                          .fitted = true,
                          .gemm = kH100Gemm,
                          .gemm_fp8 = kH100Fp8,
                          .attention = kH100Attention,
                          .sustained = kHopperSustained};
const GpuGeneration kH200{.name = "H200",
                          .fitted = true,
                          .gemm = kH200Gemm,
                          .gemm_fp8 = kH200Fp8,
                          .attention = kH200Attention,
                          .sustained = kHopperSustained};
const GpuGeneration kB200{.name = "B200",
                          .fitted = true,
                          .gemm = kB200Gemm,
                          .gemm_fp8 = kB200Fp8,
                          .attention = kBlackwellAttention,
                          .sustained = kBlackwellSustained};
const GpuGeneration kGb200{.name = "GB200",
                           .fitted = true,
                           .gemm = kGb200Gemm,
                           .gemm_fp8 = kB200Fp8,
                           .attention = kBlackwellAttention,
                           .sustained = kBlackwellSustained};
// Attention of Ada was not measured; its FlashAttention 2 is taken to be as efficient as A100's.
const GpuGeneration kL40s{.name = "L40S",
                          .fitted = true,
                          .gemm = kL40sGemm,
                          .gemm_fp8 = kL40sFp8,
                          .attention = {.efficiency_128 = 0.684,
                                        .efficiency_64 = 0.612,
                                        .tail_tiles = 0.79,
                                        .wave_s = 0,
                                        .bandwidth = 0.72,
                                        .relative_error = 0.2},
                          .sustained = 0.90};

// Means over the six GPUs above of t0 + max(flops/(e·P), bytes/(b·BW)) fitted to each: t0 of
// 2 … 6 µs, e of 0.60 … 0.79, b of 0.69 … 0.83. The error is that of such a fit on a GPU that it
// was not made for.
const GpuGeneration kDataSheet{
    .name = "data sheet",
    .fitted = false,
    .gemm = {.start_s = 3.8e-6, .efficiency = 0.71, .bandwidth = 0.77, .relative_error = 0.25},
    .gemm_fp8 = {.start_s = 3.8e-6, .efficiency = 0.6, .bandwidth = 0.77, .relative_error = 0.3},
    .attention = {.efficiency_128 = 0.55,
                  .efficiency_64 = 0.45,
                  .tail_tiles = 0.5,
                  .wave_s = 0,
                  .bandwidth = 0.7,
                  .relative_error = 0.3},
    .sustained = 0.90};

}  // namespace

const GpuGeneration& data_sheet_generation() { return kDataSheet; }

const GpuGeneration& gpu_generation(const DeviceRates& rates) {
  // One capability covers parts of different memory or clocks; the data-sheet figure that tells
  // them apart lies between theirs.
  constexpr double kH200Bandwidth = 4.3e12;  // 3.35 and 4.8 TB/s
  constexpr double kGb200Flops = 2.4e15;     // 2.25 and 2.5 PFLOP/s
  switch (rates.compute_capability) {
    case 80:
      return kA100;
    case 89:
      return kL40s;
    case 90:
      return rates.memory_bandwidth_bytes_per_s > kH200Bandwidth ? kH200 : kH100;
    case 100:
      return rates.bf16_flops > kGb200Flops ? kGb200 : kB200;
    default:
      return kDataSheet;
  }
}

}  // namespace rehearse
