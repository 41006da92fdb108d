// Linear layers under tensor parallelism (Shoeybi et al. 2019, arXiv 1909.08053) and sequence
// parallelism (Korthikanti et al. 2022, arXiv 2205.05198, §4.2.2).
//
// With T tokens, a layer of k inputs and n outputs on this rank costs 2·T·k·n FLOPs in each of
// three products: the forward, the gradient of its input and the gradient of its weights. The
// last adds into the gradient buffer, in fp32 where gradients are fp32.
//
// Over a grid of R rows and C columns of tensor ranks a rank holds one block of each matrix, h/R of
// the hidden size times n/C of the other, and h/R of the residual stream: the two-dimensional
// weight-stationary layout of Pope et al. 2022 (arXiv 2211.05102, §3.2.2), trained. Inside blocks
// everything is cut by R·C as ever: heads, columns of the feed-forward block. A product into a
// block gathers nothing more, but its results are sums over the C-th part of the columns that R
// ranks of a column of the grid have parts of: they are reduced and scattered among these. A
// product out of a block gathers its inputs among them first. What joins all tensor ranks with one
// row (gathers of the sequence, sums over n) joins the C ranks of a row, with h/R for h:
//
//   forward   into a block    row: gather T·h/R (split sequence)   column: reduce-scatter T·n/C
//             out of a block  column: gather T·n/C                 row: reduce T·h/R
//   backward  into a block    column: gather dY, T·n/C             row: reduce dX, T·h/R
//                             row: gather X for dW (split sequence)
//             out of a block  row: gather dY, T·h/R (split sequence)
//                             column: gather X for dW, T·n/C; reduce-scatter dX, T·n/C
//
// With one row nothing is left of the columns' transfers: Megatron-LM's.
//
// In fp8 plans an operand is cast from 16 bits. Its own product reads it as it is, the weight
// gradient transposed, since fp8 tensor cores take one layout only: it is stored twice where
// weight gradients are fp8 (Transformer Engine's cast_transpose), once where they are not. With
// scales for blocks the two copies have other scales, 1×128 and 128×1: what was kept for the
// backward is read, scaled anew, transposed and written there (DeepSeek-V3, arXiv 2412.19437,
// §3.5.2).

#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

/// dW[out, in] = dYᵀ[out, T] · X[T, in], added to what earlier micro-batches left.
Operator weight_gradient(const LayerShape& shape, const LayerWidths& at, const Linear& linear,
                         Precision precision) {
  const bool fp32 = shape.gradient_precision == Precision::Fp32;
  Operator op = scaled_product(shape, gemm(linear.name, Pass::WeightGradient, precision, linear.out,
                                           linear.in, at.tokens, fp32));
  if (!fp32)  // the product writes the sum; it must read the old one as well
    op.bytes += at.gradient_bytes * static_cast<double>(linear.out * linear.in);
  return op;
}

/// Bytes of an element of a sequence-parallel gather before a product.
double gathered_bytes(const LayerWidths& at, const Linear& linear) {
  return linear.fp8 && at.fp8_gathers ? bytes_of(Precision::Fp8) : at.element_bytes;
}

}  // namespace

double fp8_element_bytes(Fp8Scaling scaling) {
  switch (scaling) {
    case Fp8Scaling::Delayed:
    case Fp8Scaling::Current:
      return 1;
    case Fp8Scaling::Block:  // an fp32 scale for 128 elements
      return 1 + 4.0 / 128;
    case Fp8Scaling::Mx:  // a power of two in a byte for 32 elements
      return 1 + 1.0 / 32;
  }
  return 1;
}

double fp8_cast_bytes(Fp8Scaling scaling, double elements, bool transposed) {
  const double copies = transposed ? 2 : 1;
  double bytes = 2 + copies * fp8_element_bytes(scaling);  // read in 16 bits
  if (scaling == Fp8Scaling::Current) bytes += 2;  // the tensor's largest value is looked for first
  return bytes * elements;
}

bool transposes_later(const LayerShape& shape) {
  return shape.fp8.weight_gradient && shape.fp8.scaling == Fp8Scaling::Block;
}

void add_cast(const LayerShape& shape, double elements, Pass pass, ItemList& items) {
  const bool later = pass == Pass::Forward && transposes_later(shape);
  items.add(memory_operator(
      OperatorName::Cast, pass,
      fp8_cast_bytes(shape.fp8.scaling, elements, shape.fp8.weight_gradient && !later), elements));
}

void add_transposing_cast(const LayerShape& shape, double elements, bool from_16_bits,
                          ItemList& items) {
  const double element = fp8_element_bytes(shape.fp8.scaling);
  items.add(memory_operator(OperatorName::Cast, Pass::WeightGradient,
                            ((from_16_bits ? 2 : element) + element) * elements, elements));
}

Operator scaled_product(const LayerShape& shape, Operator op) {
  op.block_scaled = op.precision == Precision::Fp8 && shape.fp8.scaling == Fp8Scaling::Block;
  return op;
}

void linear_forward(const LayerShape& shape, const Linear& linear, ItemList& items) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.tokens);
  const double in = tokens * static_cast<double>(linear.in);
  const double out = tokens * static_cast<double>(linear.out);
  if (linear.column_parallel && shape.sequence_parallel)
    items.row_collective(at, CollectiveKind::AllGather, linear.name, Pass::Forward,
                         gathered_bytes(at, linear) * in);
  if (!linear.column_parallel)
    items.column_collective(at, CollectiveKind::AllGather, linear.name, Pass::Forward,
                            gathered_bytes(at, linear) * in);
  if (linear.fp8) add_cast(shape, in, Pass::Forward, items);
  // A column-parallel bias is added in the product's epilogue, a row-parallel one with the
  // residual.
  items.add(scaled_product(
      shape, gemm(linear.name, Pass::Forward, linear.fp8 ? Precision::Fp8 : at.activation_precision,
                  at.tokens, linear.out, linear.in)));
  if (linear.column_parallel)
    return items.column_collective(at, CollectiveKind::ReduceScatter, linear.name, Pass::Forward,
                                   at.element_bytes * out);
  items.row_collective(
      at, shape.sequence_parallel ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce,
      linear.name, Pass::Forward, at.element_bytes * out);
}

void linear_backward(const LayerShape& shape, const Linear& linear, ItemList& items) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.tokens);
  const Precision precision = linear.fp8 ? Precision::Fp8 : at.activation_precision;
  const Precision weight_precision =
      linear.fp8 && shape.fp8.weight_gradient ? Precision::Fp8 : at.activation_precision;
  const double input_elements = tokens * static_cast<double>(linear.in);
  const double output_elements = tokens * static_cast<double>(linear.out);
  const bool column = linear.column_parallel;

  if (column)
    items.column_collective(at, CollectiveKind::AllGather, linear.name, Pass::InputGradient,
                            gathered_bytes(at, linear) * output_elements);
  else if (shape.sequence_parallel)
    items.row_collective(at, CollectiveKind::AllGather, linear.name, Pass::InputGradient,
                         gathered_bytes(at, linear) * output_elements);
  if (linear.fp8) add_cast(shape, output_elements, Pass::InputGradient, items);
  // The saved input is split; only dW needs it whole.
  if (column && shape.sequence_parallel)
    items.row_collective(at, CollectiveKind::AllGather, linear.name, Pass::WeightGradient,
                         bytes_of(weight_precision) * input_elements, true);
  if (!column)
    items.column_collective(at, CollectiveKind::AllGather, linear.name, Pass::WeightGradient,
                            bytes_of(weight_precision) * input_elements, true);
  items.add(scaled_product(
      shape, gemm(linear.name, Pass::InputGradient, precision, at.tokens, linear.in, linear.out)));
  if (linear.fp8 && transposes_later(shape))
    add_transposing_cast(shape, input_elements, linear.repeated_input, items);
  if (column)
    items.row_collective(
        at, shape.sequence_parallel ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce,
        linear.name, Pass::InputGradient, at.element_bytes * input_elements, true);
  else
    items.column_collective(at, CollectiveKind::ReduceScatter, linear.name, Pass::InputGradient,
                            at.element_bytes * input_elements, true);
  items.add(weight_gradient(shape, at, linear, weight_precision));
  if (linear.bias) {
    // Of the outputs that this rank keeps.
    const auto rows = static_cast<double>(column ? at.tokens : at.split_tokens);
    const auto width = static_cast<double>(column ? linear.out / at.rows : linear.out);
    const double summed = rows * width;
    items.add(
        memory_operator(linear.name, Pass::WeightGradient, at.element_bytes * summed, summed));
  }
}

}  // namespace rehearse
