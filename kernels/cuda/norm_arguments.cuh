#pragma once
#include "kernels/cuda/rows.cuh"

namespace rehearse {

struct NormForwardArguments {
  const void *x, *residual, *weight, *bias;
  void *sum, *out;
  float *mean, *inverse;
  std::int64_t rows;
  int h;
  float epsilon;
};

struct NormBackwardArguments {
  const void *x, *d_out, *weight, *d_residual;
  void* d_x;
  const float *mean, *inverse;
  float* shares;  // (blocks, 2, h): each block's share of d_weight and d_bias
  std::int64_t rows;
  int h;
};

NormForwardArguments norm_arguments(const NormForward& call);
NormBackwardArguments norm_arguments(const NormBackward& call);

/// Elements a pack: a full one of the activations' type, where all tensors allow it, else 1.
int norm_pack(const NormForward& call);
int norm_pack(const NormBackward& call);

// Rows that are too long for the registers of a block.
void norm_forward_long(const NormForward& call, LaunchContext& context);
int norm_backward_long_blocks(const NormBackward& call, LaunchContext& context);
void norm_backward_long(const NormBackward& call, const NormBackwardArguments& arguments,
                        int blocks, LaunchContext& context);

/// Calls body with the pack's size and element types of activations and parameters.
template <typename Body>
void with_norm_types(const char* name, DType activation, DType parameter, int pack,
                     const Body& body) {
  with_device_type(name, activation, [&](auto t) {
    with_device_type(name, parameter, [&](auto w) {
      with_pack<decltype(t)>(pack > 1, [&](auto n) { body(n, t, w); });
    });
  });
}

}  // namespace rehearse
