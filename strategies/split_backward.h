#pragma once
#include "kernels/layer.h"

namespace rehearse {

/// What a layer keeps between the two halves of a split backward, on one tensor rank for one
/// micro-batch: the inputs of its matrix products and the gradients of their outputs. For
/// multi-head attention with a feed-forward of 4h these are the 32·s·b·h bytes at 16 bits of Qi
/// et al. 2023 (arXiv 2401.10241), table 1: inputs 2 + 2 + 2 + 8, gradients 6 + 2 + 8 + 2.
double layer_kept_for_weights_bytes(const LayerShape& shape);
/// Of the product of a module that predicts a further token.
double mtp_kept_for_weights_bytes(const LayerShape& shape);
/// The head's input and the gradient of the logits.
double head_kept_for_weights_bytes(const LayerShape& shape);

}  // namespace rehearse
