// The two ends of the model: embedding, and final norm with head and loss.
//
// The loss follows Megatron-LM's fused_cross_entropy.py: logits are cast to fp32 and their
// maximum taken (all-reduced over vocabulary ranks), shifted, exponentiated and summed in a second
// pass (the target's logit and the sum are all-reduced), and divided in a third. Its backward
// scales the saved softmax in place and casts it back.
//
// The runner's (kernels/ops/vocabulary_calls.h) reads logits once, in the compute precision, for
// maximum, sum and target's logit of each row; vocabulary ranks bring their sums to the largest
// maximum; its backward reads the logits and writes their gradient in place.

#include "kernels/layer.h"
#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

constexpr double kTokenIdBytes = 8;     // int64, as PyTorch's data loaders make them
constexpr double kOwnTokenIdBytes = 4;  // int32, as the runner has them
constexpr double kFp32Bytes = 4;

bool splits_vocabulary(const LayerShape& shape) {
  return shape.tp > 1 && shape.vocabulary_parallel;
}

Linear head(const LayerShape& shape, const LayerWidths& at) {
  // The head stays in the activations' precision when layers use fp8 (Transformer Engine's usual
  // recipe), and has no bias.
  return {.name = OperatorName::Head,
          .in = at.hidden,
          .out = at.rows * at.vocab,
          .column_parallel = shape.vocabulary_parallel,
          .bias = false,
          .fp8 = false};
}

void cross_entropy(const LayerWidths& at, Pass pass, double passes_bytes, double flops,
                   ItemList& items) {
  const double logits = static_cast<double>(at.tokens) * static_cast<double>(at.vocab);
  items.add(
      memory_operator(OperatorName::CrossEntropy, pass, passes_bytes * logits, flops * logits));
}

/// Bytes of casting a logit to or from fp32; nothing where it is fp32 already.
double logit_cast_bytes(const LayerWidths& at) {
  return at.element_bytes == kFp32Bytes ? 0 : at.element_bytes + kFp32Bytes;
}

void loss_forward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const auto reduce = [&] {
    if (splits_vocabulary(shape))
      items.collective(CollectiveKind::AllReduce, OperatorName::CrossEntropy, Pass::Forward,
                       kFp32Bytes * static_cast<double>(at.tokens));
  };
  cross_entropy(at, Pass::Forward, logit_cast_bytes(at) + kFp32Bytes, 1, items);
  reduce();  // maximum
  cross_entropy(at, Pass::Forward, 2 * kFp32Bytes, 3, items);
  reduce();  // logit of the target
  reduce();  // sum of exponentials
  cross_entropy(at, Pass::Forward, 2 * kFp32Bytes, 1, items);
}

/// A pass over numbers of each token alone: `fp32s` of them are read or written.
void token_pass(const LayerWidths& at, double fp32s, ItemList& items) {
  const auto tokens = static_cast<double>(at.tokens);
  items.add(memory_operator(OperatorName::CrossEntropy, Pass::Forward, fp32s * kFp32Bytes * tokens,
                            tokens));
}

/// Forward: logits and target are read, three numbers a token written. Of vocabulary ranks the
/// maximum is copied before it is reduced, and both maxima read to change the sum.
void own_loss_forward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const auto tokens = static_cast<double>(at.tokens);
  const double logits = tokens * static_cast<double>(at.vocab);
  items.add(memory_operator(
      OperatorName::CrossEntropy, Pass::Forward,
      at.element_bytes * logits + (kOwnTokenIdBytes + 3 * kFp32Bytes) * tokens, 4 * logits));
  if (!splits_vocabulary(shape)) return;
  const auto reduce = [&] {
    items.collective(CollectiveKind::AllReduce, OperatorName::CrossEntropy, Pass::Forward,
                     kFp32Bytes * tokens);
  };
  token_pass(at, 2, items);
  reduce();  // maximum
  token_pass(at, 4, items);
  reduce();  // logit of the target
  reduce();  // sum of exponentials
}

/// Target, three numbers and the weight of each token are read, its loss is written.
void own_loss_backward(const LayerWidths& at, ItemList& items) {
  const auto tokens = static_cast<double>(at.tokens);
  const double logits = tokens * static_cast<double>(at.vocab);
  items.add(memory_operator(
      OperatorName::CrossEntropy, Pass::InputGradient,
      2 * at.element_bytes * logits + (kOwnTokenIdBytes + 5 * kFp32Bytes) * tokens, 4 * logits));
}

/// Of the runner: rows of tokens, and of positions, are added into the output; a tensor rank that
/// has no positions moves less.
void own_embedding_forward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const auto tokens = static_cast<double>(at.tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const double tables = shape.model.positions == Positions::Learned ? 2 : 1;
  const double rows_read = elements / (splits_vocabulary(shape) ? shape.tensor_columns() : 1);
  items.add(memory_operator(
      OperatorName::Embedding, Pass::Forward,
      tables * kOwnTokenIdBytes * tokens + at.element_bytes * (rows_read + tables * elements),
      (tables - 1) * elements));
}

/// Of the runner: a pass a table. The gradient of each token is added to its row.
void own_embedding_backward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const auto tokens = static_cast<double>(at.tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const auto pass = [&](double rows) {
    items.add(memory_operator(
        OperatorName::Embedding, Pass::WeightGradient,
        kOwnTokenIdBytes * tokens + at.element_bytes * elements + 2 * at.gradient_bytes * rows,
        rows));
  };
  pass(elements / (splits_vocabulary(shape) ? shape.tensor_columns() : 1));
  if (shape.model.positions == Positions::Learned) pass(elements);
}

/// A head that is not split by vocabulary is whole on every tensor rank: nothing to reduce, but
/// sequence-parallel ranks must gather its input first and split its gradient afterwards.
void whole_head_forward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  if (shape.sequence_parallel)
    items.collective(CollectiveKind::AllGather, OperatorName::Head, Pass::Forward,
                     at.element_bytes * static_cast<double>(at.tokens * at.hidden));
  items.add(gemm(OperatorName::Head, Pass::Forward, at.activation_precision, at.tokens, at.vocab,
                 at.hidden));
}

void whole_head_backward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  items.add(gemm(OperatorName::Head, Pass::InputGradient, at.activation_precision, at.tokens,
                 at.hidden, at.vocab));
  if (shape.sequence_parallel)
    items.collective(CollectiveKind::AllGather, OperatorName::Head, Pass::WeightGradient,
                     at.element_bytes * static_cast<double>(at.tokens * at.hidden));
  items.add(gemm(OperatorName::Head, Pass::WeightGradient, at.activation_precision, at.vocab,
                 at.hidden, at.tokens, shape.gradient_precision == Precision::Fp32));
}

}  // namespace

std::vector<LayerItem> embedding_forward(const LayerShape& shape) {
  const LayerWidths at(shape);
  ItemList items;
  const auto tokens = static_cast<double>(at.tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const bool learned = shape.model.positions == Positions::Learned;
  const double rows_read = elements / (splits_vocabulary(shape) ? shape.tensor_columns() : 1);
  if (shape.own_runner)
    own_embedding_forward(shape, at, items);
  else
    items.add(memory_operator(OperatorName::Embedding, Pass::Forward,
                              kTokenIdBytes * tokens + at.element_bytes * (elements + rows_read)));
  if (splits_vocabulary(shape)) {
    // Megatron-LM reduces to the split sequence only where no positions are added afterwards.
    const bool scatters = shape.sequence_parallel && !learned;
    items.row_collective(at, scatters ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce,
                         OperatorName::Embedding, Pass::Forward, at.element_bytes * elements);
  }
  if (learned && !shape.own_runner)
    items.add(memory_operator(OperatorName::Embedding, Pass::Forward,
                              3 * at.element_bytes * elements, elements));
  if (at.dropout) {
    const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
    items.add(memory_operator(OperatorName::Embedding, Pass::Forward,
                              (2 * at.element_bytes + 1) * split, split));
  }
  return items.take();
}

std::vector<LayerItem> embedding_backward(const LayerShape& shape) {
  const LayerWidths at(shape);
  ItemList items;
  const auto tokens = static_cast<double>(at.tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  if (at.dropout) {
    const double split = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
    items.add(memory_operator(OperatorName::Embedding, Pass::InputGradient,
                              (2 * at.element_bytes + 1) * split, split));
  }
  if (shape.sequence_parallel)
    items.row_collective(at, CollectiveKind::AllGather, OperatorName::Embedding,
                         Pass::InputGradient, at.element_bytes * elements);
  if (shape.own_runner) {
    own_embedding_backward(shape, at, items);
    return items.take();
  }
  // The gradient of each token is added to its row (read and written); learned positions too.
  const double tables = shape.model.positions == Positions::Learned ? 2 : 1;
  const double rows = elements / (splits_vocabulary(shape) ? shape.tensor_columns() : 1);
  items.add(memory_operator(OperatorName::Embedding, Pass::WeightGradient,
                            kTokenIdBytes * tokens + tables * at.element_bytes * elements +
                                2 * at.gradient_bytes * (rows + (tables - 1) * elements),
                            tables * elements));
  return items.take();
}

std::vector<LayerItem> head_forward(const LayerShape& shape) {
  const LayerWidths at(shape);
  ItemList items;
  add_norm_forward(shape, OperatorName::FinalNorm, items);
  const bool split = splits_vocabulary(shape);
  if (split || shape.tp == 1)
    linear_forward(shape, head(shape, at), items);
  else
    whole_head_forward(shape, at, items);
  if (shape.own_runner)
    own_loss_forward(shape, at, items);
  else
    loss_forward(shape, at, items);
  return items.take();
}

std::vector<LayerItem> head_backward(const LayerShape& shape, bool weight_gradients_last) {
  const LayerWidths at(shape);
  ItemList items;
  if (shape.own_runner)
    own_loss_backward(at, items);
  else
    cross_entropy(at, Pass::InputGradient, 2 * kFp32Bytes + logit_cast_bytes(at), 2, items);
  if (splits_vocabulary(shape) || shape.tp == 1)
    linear_backward(shape, head(shape, at), items);
  else
    whole_head_backward(shape, at, items);
  add_norm_backward(shape, OperatorName::FinalNorm, items);
  return weight_gradients_last ? with_weight_gradients_last(items.take()) : items.take();
}

}  // namespace rehearse
