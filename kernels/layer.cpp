// One transformer layer as its operators, on one tensor rank for one micro-batch:
//   x → norm → qkv → (rope) → attention → output → +x → norm → up → activation → down → + → y
// Traffic is the least that fused kernels move, B bytes an element; FLOPs of elementwise passes
// are counts an element, after Calculon (Isaev et al. 2023): 9 forward and 21 backward for
// LayerNorm, 8 and 13 for GeLU.

#include "kernels/layer.h"

#include "kernels/latent_attention.h"
#include "kernels/layer_experts.h"
#include "kernels/layer_parts.h"
#include "plan/mixture.h"

namespace rehearse {
namespace {

Linear qkv(const LayerShape& shape, const LayerWidths& at) {
  return {.name = OperatorName::Qkv,
          .in = at.hidden,
          .out = at.rows * at.qkv,
          .column_parallel = true,
          .bias = shape.model.linear_bias || shape.model.qkv_bias,
          .fp8 = at.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

Linear attention_output(const LayerShape& shape, const LayerWidths& at) {
  return {.name = OperatorName::AttentionOutput,
          .in = at.rows * at.query,
          .out = at.hidden,
          .column_parallel = false,
          .bias = shape.model.linear_bias,
          .fp8 = at.fp8_output};
}

Linear ffn_up(const LayerShape& shape, const LayerWidths& at) {
  return {.name = OperatorName::FfnUp,
          .in = at.hidden,
          .out = at.rows * at.ffn_up,
          .column_parallel = true,
          .bias = shape.model.linear_bias,
          .fp8 = at.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

Linear ffn_down(const LayerShape& shape, const LayerWidths& at) {
  return {.name = OperatorName::FfnDown,
          .in = at.rows * at.ffn,
          .out = at.hidden,
          .column_parallel = false,
          .bias = shape.model.linear_bias,
          .fp8 = at.fp8,
          .repeated_input = repeated_parts(shape).ffn_activation};
}

/// Rotation of queries and keys: each is read and written; the tables stay in cache.
void rope(const LayerShape& shape, const LayerWidths& at, Pass pass, ItemList& items) {
  if (shape.model.positions != Positions::Rotary) return;
  const double rotated = static_cast<double>(at.tokens) * static_cast<double>(at.query + at.key);
  items.add(memory_operator(OperatorName::Rope, pass, 2 * at.element_bytes * rotated, 3 * rotated));
}

/// Elements an activation function reads and writes a position of the block's width f: GeLU reads
/// f and writes f, back it reads the gradient and the input and writes one; SwiGLU has two inputs.
void activation(const LayerShape& shape, const LayerWidths& at, Pass pass, ItemList& items) {
  const bool forward = pass == Pass::Forward;
  const double width = static_cast<double>(at.tokens) * static_cast<double>(at.ffn);
  const ActivationCost cost = activation_cost(shape.model.activation, forward);
  items.add(memory_operator(OperatorName::FfnActivation, pass,
                            cost.moved * at.element_bytes * width, cost.flops * width));
}

/// Bias, dropout and residual in one pass: reads both summands, writes the sum and, with dropout,
/// a mask of one byte an element.
void residual_add(const LayerWidths& at, ItemList& items) {
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  items.add(memory_operator(OperatorName::ResidualAdd, Pass::Forward,
                            (3 * at.element_bytes + (at.dropout ? 1 : 0)) * elements,
                            (at.dropout ? 3 : 2) * elements));
}

double activation_inputs(const LayerWidths& at) {
  return static_cast<double>(at.tokens) * static_cast<double>(at.ffn_up);
}

double attention_results(const LayerWidths& at) {
  return static_cast<double>(at.tokens) * static_cast<double>(at.query);
}

/// The gradient that goes into a block: the mask applied, or the arriving gradient as it is.
void dropout_backward(const LayerWidths& at, ItemList& items) {
  if (!at.dropout) return;
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  items.add(memory_operator(OperatorName::ResidualAdd, Pass::InputGradient,
                            (2 * at.element_bytes + 1) * elements, elements));
}

/// The gradient that comes around a block is added to the one that came through it.
void residual_gradient(const LayerWidths& at, ItemList& items) {
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  items.add(memory_operator(OperatorName::ResidualAdd, Pass::InputGradient,
                            3 * at.element_bytes * elements, elements));
}

/// The residual is added, and its sum normed. Of the runner this is one pass: it reads both
/// summands, writes the sum and the norm's result (`NormForward` with a residual).
void residual_and_norm(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  if (!shape.own_runner) {
    residual_add(at, items);
    return add_norm_forward(shape, OperatorName::Norm, items);
  }
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  Operator op = norm_forward(shape, OperatorName::Norm);
  op.bytes += 2 * at.element_bytes * elements;
  op.flops += elements;
  items.add(op);
}

/// The way back: the gradient that comes around the block is read and added where the norm's is
/// written.
void norm_and_residual_gradient(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  if (!shape.own_runner) {
    add_norm_backward(shape, OperatorName::Norm, items);
    return residual_gradient(at, items);
  }
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  Operator op = norm_backward(shape, OperatorName::Norm);
  op.bytes += at.element_bytes * elements;
  op.flops += elements;
  items.add(op);
}

/// A norm's result made again, and what its product keeps of it in fp8 plans (the transposed copy
/// that comes later is made of the 16 bits).
void repeat_norm(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  ItemList again;
  add_norm_forward(shape, OperatorName::Norm, again);
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  if (at.fp8 && !transposes_later(shape)) add_cast(shape, elements, Pass::Forward, again);
  items.append(again.take(), true);
}

/// The block is one checkpoint: all of it is repeated from its input, as Megatron-LM does with its
/// "mlp" module; the activation function alone is its own.
void repeat_feed_forward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const RepeatedParts repeated = repeated_parts(shape);
  ItemList again;
  if (repeated.ffn) {
    if (repeated.norm) repeat_norm(shape, at, items);
    linear_forward(shape, ffn_up(shape, at), again);
    activation(shape, at, Pass::Forward, again);
    linear_forward(shape, ffn_down(shape, at), again);
  } else if (repeated.ffn_activation) {
    activation(shape, at, Pass::Forward, again);
    const auto width = static_cast<double>(at.tokens) * static_cast<double>(at.ffn);
    if (at.fp8 && !transposes_later(shape)) add_cast(shape, width, Pass::Forward, again);
  }
  items.append(again.take(), true);
}

void feed_forward_backward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const RepeatedParts repeated = repeated_parts(shape);
  dropout_backward(at, items);
  if (shape.model.experts.count > 0) {
    if (repeated.norm) repeat_norm(shape, at, items);
    repeat_experts(shape, repeated, items);
    experts_backward(shape, items);
  } else {
    if (!repeated.ffn)
      add_store(shape, shape.store.ffn_activation, activation_inputs(at), Pass::InputGradient,
                items);
    repeat_feed_forward(shape, at, items);
    linear_backward(shape, ffn_down(shape, at), items);
    activation(shape, at, Pass::InputGradient, items);
    if (repeated.norm && !repeated.ffn) repeat_norm(shape, at, items);
    linear_backward(shape, ffn_up(shape, at), items);
  }
  norm_and_residual_gradient(shape, at, items);
}

void attention_backward(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  dropout_backward(at, items);
  const RepeatedParts repeated = repeated_parts(shape);
  if (is_latent(shape.model)) {
    if (repeated.norm) repeat_norm(shape, at, items);
    latent_backward(shape, items);
    return norm_and_residual_gradient(shape, at, items);
  }
  add_store(shape, shape.store.attention_result, attention_results(at), Pass::InputGradient, items);
  linear_backward(shape, attention_output(shape, at), items);
  if (repeated.attention) {
    ItemList core;
    attention_core_forward(shape, core);
    items.append(core.take(), true);
  }
  attention_core_backward(shape, items);
  rope(shape, at, Pass::InputGradient, items);
  if (repeated.norm) repeat_norm(shape, at, items);
  linear_backward(shape, qkv(shape, at), items);
  norm_and_residual_gradient(shape, at, items);
}

/// Forward operators that are repeated where attention and every other product are kept. Products
/// count as a framework without fused projections has them: q, k, v, output, gate, up, down, or q,
/// k, v, output, up, down; the second, fourth and sixth are repeated. Results of row-parallel sums
/// are kept, gathers before products repeated.
void recomputed_operators(const LayerShape& shape, const LayerWidths& at, ItemList& items) {
  const Precision precision = at.fp8 ? Precision::Fp8 : at.activation_precision;
  const auto gather = [&](OperatorName name) {
    if (shape.sequence_parallel)
      items.row_collective(at, CollectiveKind::AllGather, name, Pass::Forward,
                           at.element_bytes * static_cast<double>(at.tokens * at.hidden));
  };
  const auto product = [&](OperatorName name, std::int64_t out, std::int64_t in) {
    items.add(gemm(name, Pass::Forward, precision, at.tokens, out, in));
  };
  const bool gated = shape.model.activation == Activation::Swiglu;
  add_norm_forward(shape, OperatorName::Norm, items);
  gather(OperatorName::Qkv);
  product(OperatorName::Qkv, at.key, at.hidden);
  rope(shape, at, Pass::Forward, items);
  product(OperatorName::AttentionOutput, at.hidden, at.query);
  residual_add(at, items);
  add_norm_forward(shape, OperatorName::Norm, items);
  if (shape.model.experts.count > 0) return repeat_expert_operators(shape, items);
  gather(OperatorName::FfnUp);
  if (gated) product(OperatorName::FfnUp, at.ffn, at.hidden);
  activation(shape, at, Pass::Forward, items);
  if (!gated) product(OperatorName::FfnDown, at.hidden, at.ffn);
}

}  // namespace

Operator norm_forward(const LayerShape& shape, OperatorName name) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.split_tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const bool layer_norm = shape.model.norm == Norm::LayerNorm;
  const double statistics = (layer_norm ? 8 : 4) * tokens;
  return memory_operator(name, Pass::Forward, 2 * at.element_bytes * elements + statistics,
                         (layer_norm ? 9 : 4) * elements);
}

Operator norm_backward(const LayerShape& shape, OperatorName name) {
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.split_tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const bool layer_norm = shape.model.norm == Norm::LayerNorm;
  const double statistics = (layer_norm ? 8 : 4) * tokens;
  // Reads input and gradient, writes the input's gradient; the weights' gradients are sums over
  // tokens that stay in cache.
  return memory_operator(name, Pass::InputGradient, 3 * at.element_bytes * elements + statistics,
                         (layer_norm ? 21 : 11) * elements);
}

namespace {

/// Where the rows of a grid hold parts of the hidden size, each adds up its own: mean and variance,
/// or the mean square; back as many. The pass that adds reads what the norm reads again.
void add_row_sums(const LayerShape& shape, OperatorName name, Pass pass, ItemList& items) {
  const LayerWidths at(shape);
  if (at.rows == 1) return;
  const auto tokens = static_cast<double>(at.split_tokens);
  const double elements = tokens * static_cast<double>(at.hidden);
  const double read = (pass == Pass::Forward ? 1 : 2) * at.element_bytes;
  const double sums = shape.model.norm == Norm::LayerNorm ? 2 : 1;
  items.add(memory_operator(name, pass, read * elements, sums * 2 * elements));
  items.column_collective(at, CollectiveKind::AllReduce, name, pass, 4 * sums * tokens);
}

}  // namespace

void add_norm_forward(const LayerShape& shape, OperatorName name, ItemList& items) {
  add_row_sums(shape, name, Pass::Forward, items);
  items.add(norm_forward(shape, name));
}

void add_norm_backward(const LayerShape& shape, OperatorName name, ItemList& items) {
  add_row_sums(shape, name, Pass::InputGradient, items);
  items.add(norm_backward(shape, name));
}

std::vector<LayerItem> layer_forward(const LayerShape& shape) {
  const LayerWidths at(shape);
  ItemList items;
  add_norm_forward(shape, OperatorName::Norm, items);
  if (is_latent(shape.model)) {
    latent_forward(shape, items);
  } else {
    linear_forward(shape, qkv(shape, at), items);
    rope(shape, at, Pass::Forward, items);
    attention_core_forward(shape, items);
    add_store(shape, shape.store.attention_result, attention_results(at), Pass::Forward, items);
    linear_forward(shape, attention_output(shape, at), items);
  }
  residual_and_norm(shape, at, items);
  if (shape.model.experts.count > 0) {
    experts_forward(shape, items);
  } else {
    linear_forward(shape, ffn_up(shape, at), items);
    if (!repeated_parts(shape).ffn)
      add_store(shape, shape.store.ffn_activation, activation_inputs(at), Pass::Forward, items);
    activation(shape, at, Pass::Forward, items);
    linear_forward(shape, ffn_down(shape, at), items);
  }
  residual_add(at, items);
  return items.take();
}

std::vector<LayerItem> layer_backward(const LayerShape& shape, bool weight_gradients_last) {
  const LayerWidths at(shape);
  ItemList items;
  if (shape.recompute == Recompute::Full) items.append(layer_forward(shape), true);
  if (shape.recompute == Recompute::Operators) {
    ItemList repeated;
    recomputed_operators(shape, at, repeated);
    items.append(repeated.take(), true);
  }
  feed_forward_backward(shape, at, items);
  attention_backward(shape, at, items);
  return weight_gradients_last ? with_weight_gradients_last(items.take()) : items.take();
}

}  // namespace rehearse
