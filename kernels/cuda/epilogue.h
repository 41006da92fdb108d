#pragma once
#include "kernels/cuda/launch_context.h"

namespace rehearse {

/// Applies a product's epilogue to `out`, which holds the bare product.
void apply_epilogue(const Gemm& call, LaunchContext& context);
/// A product over nothing: zeros.
void clear_matrix(const TensorView& out, LaunchContext& context);

}  // namespace rehearse
