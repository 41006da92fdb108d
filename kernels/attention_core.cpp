// The attention core. Flash: one kernel forward and one backward (Dao et al. 2022, arXiv
// 2205.14135), scores never leave the chip, and tiles that borders of documents or a window leave
// nothing of are passed over. Plain, as Megatron-LM without flash attention: the
// whole s×s square of scores as matrix products, with fused scale-mask-softmax and dropout
// between them, whose results the backward reads again.
//
// Traffic of the memory passes an element of the square, B bytes each: softmax reads and writes
// (2B), dropout reads, writes and keeps a one-byte mask (2B+1); backwards, dropout reads the
// gradient and the mask and writes (2B+1), softmax reads gradient and result and writes (3B).

#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

/// Queries and keys of whole sequences, and how many squares of them.
struct Square {
  std::int64_t batch, queries, keys, size;
  double elements;
};

Square square_of(const LayerShape& shape) {
  const LayerWidths at(shape);
  Square square{.batch = shape.micro_batch * at.heads,
                .queries = shape.seq_len,
                .keys = shape.seq_len,
                .size = shape.model.head_dim,
                .elements = 0};
  square.elements =
      static_cast<double>(square.batch * square.queries) * static_cast<double>(square.keys);
  return square;
}

Operator flash(const LayerShape& shape, Pass pass) {
  const LayerWidths at(shape);
  return with_pairs(attention(pass, at.activation_precision, shape.micro_batch, shape.seq_len,
                              shape.seq_len, at.heads, at.kv_heads, shape.model.head_dim, true),
                    shape.pair_share);
}

}  // namespace

void attention_core_forward(const LayerShape& shape, ItemList& items) {
  if (shape.cp > 1) return context_core_forward(shape, items);
  if (shape.attention == AttentionKernel::Flash) return items.add(flash(shape, Pass::Forward));
  const LayerWidths at(shape);
  const Square square = square_of(shape);
  const double softmax_bytes = 2 * at.element_bytes;
  const double dropout_bytes = at.dropout ? 2 * at.element_bytes + 1 : 0;
  const auto product = [&](std::int64_t n, std::int64_t k) {
    items.add(batched_gemm(OperatorName::Attention, Pass::Forward, at.activation_precision,
                           square.batch, square.queries, n, k));
  };
  product(square.keys, square.size);  // scores = Q·Kᵀ
  items.add(memory_operator(OperatorName::Attention, Pass::Forward,
                            (softmax_bytes + dropout_bytes) * square.elements,
                            5 * square.elements));
  product(square.size, square.keys);  // P·V
}

void attention_core_backward(const LayerShape& shape, ItemList& items) {
  if (shape.cp > 1) return context_core_backward(shape, items);
  if (shape.attention == AttentionKernel::Flash)
    return items.add(flash(shape, Pass::InputGradient));
  const LayerWidths at(shape);
  const Square square = square_of(shape);
  const double softmax_bytes = 3 * at.element_bytes;
  const double dropout_bytes = at.dropout ? 2 * at.element_bytes + 1 : 0;
  const auto product = [&](std::int64_t m, std::int64_t n, std::int64_t k) {
    items.add(batched_gemm(OperatorName::Attention, Pass::InputGradient, at.activation_precision,
                           square.batch, m, n, k));
  };
  product(square.queries, square.keys, square.size);  // dP = dO·Vᵀ
  product(square.keys, square.size, square.queries);  // dV = Pᵀ·dO
  items.add(memory_operator(OperatorName::Attention, Pass::InputGradient,
                            (softmax_bytes + dropout_bytes) * square.elements,
                            5 * square.elements));
  product(square.queries, square.size, square.keys);  // dQ = dS·K
  product(square.keys, square.size, square.queries);  // dK = dSᵀ·Q
}

}  // namespace rehearse
