#pragma once
#include <cmath>

#include "kernels/profile.h"

namespace rehearse {

/// A GPU and a profile of it small enough to calculate with: sustained rate 0.8, gradients of
/// weights at half the rate.
inline Profile small_profile() {
  Profile profile;
  profile.gpu = "example";
  profile.stack = "test";
  profile.made_by = "a test";
  profile.sources = {"nothing measured"};
  profile.device.gpu = "example";
  profile.device.fp32_flops = 60e12;
  profile.device.bf16_flops = profile.device.fp16_flops = 1e15;
  profile.device.memory_bandwidth_bytes_per_s = 4e12;
  profile.device.l2_bytes = 50e6;
  profile.device.power_w = 700;
  profile.device.streaming_multiprocessors = 132;
  profile.device.compute_capability = 90;
  profile.sustained_rate = {.value = 0.8, .source = "chosen"};

  GemmFit gemm;
  gemm.constants = {.start_s = 3e-6,
                    .efficiency = 0.7,
                    .bandwidth = 0.8,
                    .tile_s = 0,
                    .intensity = 0,
                    .sharpness = 4,
                    .split_s = 3e-6};
  gemm.weight_gradient = {
      .rate = 0.5, .spread = 0.1, .evidence = CostSource::Fitted, .source = "chosen"};
  gemm.input_gradient = {
      .rate = 1, .spread = 0.1, .evidence = CostSource::Fitted, .source = "chosen"};
  gemm.residuals = ResidualMap({{{12, 12, 12, 0}, 0.0}, {{10, 12, 12, 0}, 0.0}});
  gemm.errors = {.samples = 100,
                 .fitted = 0.03,
                 .held_out = 0.05,
                 .large_samples = 50,
                 .held_out_large = 0.04};
  profile.gemm.push_back(gemm);

  AttentionFit attention;
  attention.start_s = 10e-6;
  attention.side_kernels_s = 7e-6;
  attention.tail_tiles = 0.2;
  attention.bandwidth = 0.7;
  attention.head_sizes = {{64, 0.5}, {128, 0.7}};
  attention.backward = {
      .rate = 0.84, .spread = 0.1, .evidence = CostSource::Fitted, .source = "chosen"};
  profile.attention.push_back(attention);

  profile.memory.push_back({.operators = {"norm"},
                            .start_s = 2e-6,
                            .cached_share = 1.2,
                            .memory_share = 0.8,
                            .relative_error = 0.1,
                            .evidence = CostSource::Fitted,
                            .source = "chosen"});
  return profile;
}

}  // namespace rehearse
