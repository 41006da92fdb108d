#pragma once
#include "kernels/cost_model.h"
#include "kernels/gpu_generation.h"

namespace rehearse {

/// What a product can use of a GPU.
struct ProductRates {
  double flops_per_s = 0;
  double memory_bandwidth_bytes_per_s = 0;  ///< data sheet
  int multiprocessors = 0;
};

/// (a^p + b^p)^(1/p): two things that overlap, the better the larger p.
double smooth_maximum(double a, double b, double sharpness);

/// The tile model of `gemm_time_s` below with given constants.
double tiled_gemm_s(const Operator& op, const GemmConstants& fit, const ProductRates& rates);

/// Rate of an fp8 product with a scale for every 128 elements relative to one with a scale a
/// tensor. Hopper's tensor cores add in few bits, so every 128 terms go to CUDA cores: 2·m·n·k/128
/// FLOPs at 67 beside 2·m·n·k at 1,979 TFLOP/s are 23 % more time where nothing hides them
/// (DeepSeek-V3, arXiv 2412.19437, §3.3.2). Two groups of warps that take turns hide what they can.
/// 0.77 leaves no bias against the rates that DeepGEMM states on an H800 for its ten products of
/// 4,096 rows or more (dense and grouped; mean error 9 %, as of all 28). From Blackwell on tensor
/// cores scale blocks themselves.
double block_scaled_rate(const Operator& op, int compute_capability);

/// Time of a matrix product of `op`'s shape on one GPU at `flops_per_s` peak.
///
/// With fitted constants, by tiles and waves: of all tile shapes TM×TN that cuBLAS has and of
/// splits of k into s parts, the fastest is taken:
///   C = ⌈⌈m/TM⌉·⌈n/TN⌉·batch·s / SM⌉ · (2·TM·TN·max(k/s, 32) / (P/SM · eps · I/(I+theta)) + pi)
///       + [s > 1] · (e1 + 8·s·m·n·batch / (beta·BW)),      I = TM·TN/(TM+TN)
///   t = t0 + (C^p + (bytes/(beta·BW))^p)^(1/p)
/// Without: t = t0 + max(flops / (eps·P), bytes / (beta·BW)).
/// Weight gradients compute at 0.95 of the forward's rate (median of 226 shapes on B200 and of
/// as many on A100 whose products accumulate in fp32). Under 1 µs.
double gemm_time_s(const Operator& op, const DeviceRates& rates, const GpuGeneration& generation,
                   double flops_per_s);

}  // namespace rehearse
