#pragma once
#include "kernels/ops/tensor.h"

namespace rehearse {

/// What a matrix product does with its result before it is stored.
enum class Epilogue : std::uint8_t {
  None,
  Bias,          ///< + bias[n]
  BiasGelu,      ///< gelu(· + bias); the value before the activation goes to pre_activation
  GeluGradient,  ///< · gelu'(pre_activation): the input gradient through the activation
};

/// out(m,n) = op(a)·op(b), added to what is there where `accumulate`. op(a) is (m,k), op(b) is
/// (k,n), row-major; `transpose_x` says that x is stored the other way round. The three products
/// of a linear layer y = x·Wᵀ with x (T,in), W (out,in):
///   forward         y  = x·Wᵀ        transpose_b
///   input gradient  dx = dy·W        –
///   weight gradient dW = dyᵀ·x       transpose_a, accumulate into fp32
/// With rank-3 tensors the outermost dimension is a batch of independent products.
/// Types: a and b alike (fp32, bf16, fp8); fp32 accumulation; out of a's type or fp32 (fp8: bf16
/// or fp32). fp8 operands stand for `scale · value`, and only a·bᵀ is offered for them, because
/// that is the one layout the tensor cores have. fp64 on the CPU only.
struct Gemm {
  ConstTensorView a, b;
  TensorView out;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
  Epilogue epilogue = Epilogue::None;
  ConstTensorView bias = {};       ///< [n], fp32 or out's type; Bias, BiasGelu
  TensorView pre_activation = {};  ///< (m,n) of out's type; written by BiasGelu, else read
  ConstTensorView a_scale = {};    ///< [1] fp32; fp8 only
  ConstTensorView b_scale = {};    ///< [1] fp32; fp8 only
};

enum class GroupedProduct : std::uint8_t { Forward, InputGradient, WeightGradient };

/// One linear layer an expert, over rows sorted by expert: expert e has rows
/// offsets[e] … offsets[e+1]−1 of the activations; weights are (experts, out, in).
///   Forward        out(rows,out)  = a(rows,in) · b[e]ᵀ
///   InputGradient  out(rows,in)   = a(rows,out) · b[e]
///   WeightGradient out[e](out,in) = a(rows,out)ᵀ · b(rows,in), fp32, added where `accumulate`
/// An expert without rows leaves zeros in its weight gradient (or what was there).
struct GroupedGemm {
  GroupedProduct product = GroupedProduct::Forward;
  ConstTensorView a, b;
  TensorView out;
  ConstTensorView offsets;  ///< [experts + 1] int32, rising from 0 to the number of rows
  bool accumulate = false;
};

/// out[n] = Σ over rows of x(rows,n), added where `accumulate`: the gradient of a bias. fp32.
struct ColumnSum {
  ConstTensorView x;
  TensorView out;
  bool accumulate = false;
};

}  // namespace rehearse
