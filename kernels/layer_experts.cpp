// A feed-forward part of experts on one rank: of the T tokens the rank has after attention, each
// goes to k of E experts.
//   x → router → permute → (dispatch) → (gather) → up → activation → down → (scatter) → (combine)
//     → unpermute, and beside it the shared experts, an ordinary block of theirs.
// Dispatch and combine are all-to-alls among `ep` ranks, which hold E/ep experts each; gather and
// scatter go over the tensor ranks that share an expert. Since the all-to-alls make every rank wait
// for the busiest, the rows are those of the busiest: load · T·k, times the tensor ranks.
//
// The products of a rank's experts are one grouped kernel: as many products as experts, each of
// their mean rows, whose tiles fill the GPU together. Routing weights are multiplied in with the
// activation function (Megatron-LM), so that no output of an expert is kept.

#include "kernels/layer_experts.h"

#include <algorithm>
#include <cmath>

#include "plan/ensure.h"
#include "plan/mixture.h"

namespace rehearse {
namespace {

constexpr double kFp32Bytes = 4;
/// Rows travel to the experts in fp8: tokens are cast before they are copied to their rows.
bool casts_before_dispatch(const LayerShape& shape) {
  return shape.precision == Precision::Fp8 && shape.fp8.gathers && shape.ep > 1;
}

/// Bytes of an element on its way to the experts, forward and backward. A row of an fp8 dispatch
/// has an fp32 scale for every 128 elements (DeepSeek-V3).
double dispatched_bytes(const LayerShape& shape, const ExpertWidths& at) {
  return casts_before_dispatch(shape) ? fp8_element_bytes(Fp8Scaling::Block)
                                      : at.layer.element_bytes;
}

/// One of the two matrices of a rank's experts.
struct Grouped {
  OperatorName name;
  std::int64_t in, out;
  bool input_in_fp8 = false, gradient_in_fp8 = false;  ///< as they arrive
  bool input_repeated = false;                         ///< made again in 16 bits, not kept
};

/// `experts` products of m × n × k, of which one size is the mean of fractional rows: FLOPs and
/// bytes follow the exact rows, tiles the next whole number.
Operator grouped_gemm(const ExpertWidths& at, OperatorName name, Pass pass, Precision precision,
                      std::int64_t n, std::int64_t k, bool rows_are_depth, bool fp32) {
  const double mean = at.rows / static_cast<double>(at.experts);
  const auto rows = static_cast<std::int64_t>(std::ceil(std::max(mean, 1.0)));
  Operator op = rows_are_depth ? gemm(name, pass, precision, n, k, rows, fp32)
                               : gemm(name, pass, precision, rows, n, k, fp32);
  op.batch = at.experts;
  const double sizes = static_cast<double>(n) * static_cast<double>(k);
  const double element = bytes_of(precision);
  const double written = precision == Precision::Fp8 ? bytes_of(Precision::Bf16) : element;
  op.flops = 2 * at.rows * sizes;
  const auto experts = static_cast<double>(at.experts);
  const auto narrow = static_cast<double>(n), deep = static_cast<double>(k);
  op.bytes = rows_are_depth
                 ? element * at.rows * (narrow + deep) + experts * (fp32 ? 8 : written) * sizes
                 : element * (at.rows * deep + experts * sizes) + written * at.rows * narrow;
  return op;
}

void cast_rows(const LayerShape& shape, double elements, Pass pass, ItemList& items) {
  if (shape.precision == Precision::Fp8) add_cast(shape, elements, pass, items);
}

/// Rows that came in fp8, transposed for the weight gradient.
void transpose_rows(const LayerShape& shape, double elements, bool from_16_bits, ItemList& items) {
  if (shape.precision == Precision::Fp8 && shape.fp8.weight_gradient)
    add_transposing_cast(shape, elements, from_16_bits, items);
}

/// Tokens cast to fp8 before their rows are sent.
void cast_tokens(const LayerShape& shape, const ExpertWidths& at, Pass pass, ItemList& items) {
  if (!casts_before_dispatch(shape)) return;
  const double elements = at.tokens * static_cast<double>(at.layer.hidden);
  items.add(memory_operator(OperatorName::Cast, pass,
                            fp8_cast_bytes(shape.fp8.scaling, elements, false), elements));
}

Precision product_precision(const LayerWidths& layer) {
  return layer.fp8 ? Precision::Fp8 : layer.activation_precision;
}

void grouped_forward(const LayerShape& shape, const ExpertWidths& at, const Grouped& matrix,
                     ItemList& items) {
  if (!matrix.input_in_fp8)
    cast_rows(shape, at.rows * static_cast<double>(matrix.in), Pass::Forward, items);
  items.add(scaled_product(
      shape, grouped_gemm(at, matrix.name, Pass::Forward, product_precision(at.layer), matrix.out,
                          matrix.in, false, false)));
}

void grouped_backward(const LayerShape& shape, const ExpertWidths& at, const Grouped& matrix,
                      ItemList& items) {
  const bool fp32 = shape.gradient_precision == Precision::Fp32;
  const Precision precision = product_precision(at.layer);
  const Precision of_weights =
      at.layer.fp8 && !shape.fp8.weight_gradient ? at.layer.activation_precision : precision;
  const double inputs = at.rows * static_cast<double>(matrix.in);
  const double outputs = at.rows * static_cast<double>(matrix.out);
  if (!matrix.gradient_in_fp8) cast_rows(shape, outputs, Pass::InputGradient, items);
  items.add(scaled_product(shape, grouped_gemm(at, matrix.name, Pass::InputGradient, precision,
                                               matrix.in, matrix.out, false, false)));
  if (matrix.gradient_in_fp8) transpose_rows(shape, outputs, false, items);
  if (matrix.input_in_fp8 || transposes_later(shape))
    transpose_rows(shape, inputs, matrix.input_repeated, items);
  Operator weights =
      scaled_product(shape, grouped_gemm(at, matrix.name, Pass::WeightGradient, of_weights,
                                         matrix.out, matrix.in, true, fp32));
  if (!fp32)  // the product writes the sum; it must read the old one as well
    weights.bytes += at.layer.gradient_bytes * static_cast<double>(at.experts) *
                     static_cast<double>(matrix.out) * static_cast<double>(matrix.in);
  items.add(weights);
}

Grouped expert_up(const LayerShape& shape, const ExpertWidths& at) {
  return {.name = OperatorName::ExpertUp,
          .in = at.layer.hidden,
          .out = at.up,
          .input_in_fp8 = casts_before_dispatch(shape)};
}
Grouped expert_down(const LayerShape& shape, const ExpertWidths& at) {
  return {.name = OperatorName::ExpertDown,
          .in = at.ffn,
          .out = at.layer.hidden,
          .gradient_in_fp8 = casts_before_dispatch(shape),
          .input_repeated = repeated_parts(shape).ffn_activation};
}

void activation_pass(const LayerShape& shape, const ExpertWidths& at, Pass pass, ItemList& items) {
  const ActivationCost cost = activation_cost(shape.model.activation, pass == Pass::Forward);
  const double width = at.rows * static_cast<double>(at.ffn);
  items.add(memory_operator(OperatorName::ExpertActivation, pass,
                            cost.moved * at.layer.element_bytes * width, cost.flops * width));
}

/// Rows on their way between ranks; `whole` rows of `bytes` an element.
void all_to_all(const LayerShape& shape, const ExpertWidths& at, OperatorName name, Pass pass,
                double element_bytes, ItemList& items) {
  if (shape.ep == 1) return;
  items.collective(CollectiveKind::AllToAll, name, pass,
                   element_bytes * at.sent_rows * static_cast<double>(at.layer.hidden));
  items.to_experts();
}

void share_rows(const LayerShape& shape, const ExpertWidths& at, CollectiveKind kind, Pass pass,
                ItemList& items) {
  // Gathered on their way to the experts, reduced on their way back.
  const double element =
      kind == CollectiveKind::AllGather ? dispatched_bytes(shape, at) : at.layer.element_bytes;
  if (shape.expert_tp > 1)
    items.collective(kind, OperatorName::TokenPermute, pass,
                     element * at.rows * static_cast<double>(at.layer.hidden));
}

/// Received rows sorted by expert, or back into the order of their senders.
void sort_rows(const LayerShape& shape, const ExpertWidths& at, Pass pass, double element_bytes,
               ItemList& items) {
  if (shape.ep == 1 || at.experts == 1) return;
  items.add(memory_operator(OperatorName::TokenPermute, pass,
                            2 * element_bytes * at.rows * static_cast<double>(at.layer.hidden)));
}

/// Tokens copied to their rows, rows summed into tokens, and the gradients of both: one side is
/// T rows, the other T·k.
void permute(const LayerShape& shape, const ExpertWidths& at, Pass pass, double element_bytes,
             ItemList& items) {
  const double rows = at.tokens * (1 + shape.model.experts.active);
  items.add(memory_operator(OperatorName::TokenPermute, pass,
                            element_bytes * rows * static_cast<double>(at.layer.hidden)));
}

/// Softmax and choice of the k largest: logits read and weights written, in fp32.
void choose(const LayerShape& shape, const ExpertWidths& at, Pass pass, ItemList& items) {
  const double logits = at.tokens * shape.model.experts.count;
  items.add(memory_operator(OperatorName::Router, pass, 2 * kFp32Bytes * logits, 10 * logits));
}

Linear shared_up(const LayerShape& shape, const LayerWidths& at, std::int64_t width) {
  return {.name = OperatorName::FfnUp,
          .in = at.hidden,
          .out = shape.model.activation == Activation::Swiglu ? 2 * width : width,
          .column_parallel = true,
          .bias = shape.model.linear_bias,
          .fp8 = at.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

Linear shared_down(const LayerShape& shape, const LayerWidths& at, std::int64_t width) {
  return {.name = OperatorName::FfnDown,
          .in = width,
          .out = at.hidden,
          .column_parallel = false,
          .bias = shape.model.linear_bias,
          .fp8 = at.fp8,
          .repeated_input = repeated_parts(shape).ffn_activation};
}

void shared_activation(const LayerShape& shape, const ExpertWidths& at, Pass pass,
                       ItemList& items) {
  const ActivationCost cost = activation_cost(shape.model.activation, pass == Pass::Forward);
  const double width = static_cast<double>(at.layer.tokens) * static_cast<double>(at.shared);
  items.add(memory_operator(OperatorName::FfnActivation, pass,
                            cost.moved * at.layer.element_bytes * width, cost.flops * width));
}

/// Inputs of the activation functions of routed and shared experts, into fewer bits and back.
void store_inputs(const LayerShape& shape, const ExpertWidths& at, Pass pass, ItemList& items) {
  if (repeated_parts(shape).ffn) return;
  const double shared = static_cast<double>(at.layer.tokens) * static_cast<double>(at.shared_up);
  add_store(shape, shape.store.ffn_activation, at.rows * static_cast<double>(at.up) + shared, pass,
            items);
}

/// The outputs, or input gradients, of shared and routed experts are added.
void add_shared(const ExpertWidths& at, Pass pass, ItemList& items) {
  const double elements = at.tokens * static_cast<double>(at.layer.hidden);
  items.add(memory_operator(OperatorName::ResidualAdd, pass, 3 * at.layer.element_bytes * elements,
                            elements));
}

}  // namespace

ActivationCost activation_cost(Activation activation, bool forward) {
  switch (activation) {
    case Activation::Swiglu:
      return {forward ? 3.0 : 5.0, forward ? 9.0 : 13.0};
    case Activation::SquaredRelu:
      return {forward ? 2.0 : 3.0, forward ? 2.0 : 3.0};
    case Activation::Gelu:
      return {forward ? 2.0 : 3.0, forward ? 8.0 : 13.0};
  }
  ensure(false, "every activation function has a cost");
  return {};
}

ExpertWidths::ExpertWidths(const LayerShape& shape) : layer(shape) {
  const Model& model = shape.model;
  tokens = static_cast<double>(layer.split_tokens);
  sent_rows = tokens * model.experts.active * shape.expert_load;
  rows = sent_rows * shape.expert_tp;
  experts = std::max(1, model.experts.count / shape.ep);
  ffn = expert_width(model) / shape.expert_tp;
  up = model.activation == Activation::Swiglu ? 2 * ffn : ffn;
  shared = model.experts.shared_ffn / shape.tp;
  shared_up = model.activation == Activation::Swiglu ? 2 * shared : shared;
}

double expert_load(const Plan& plan, const Routing& routing) {
  const double most = plan.experts.capacity;
  if (most > 0 && plan.experts.pad) return most;
  const double busiest = plan.ep > 1 ? std::min<double>(routing.imbalance, plan.ep) : 1;
  return most > 0 ? std::min(busiest, most) : busiest;
}

void experts_forward(const LayerShape& shape, ItemList& items) {
  const ExpertWidths at(shape);
  const Model& model = shape.model;
  if (at.shared > 0) {
    linear_forward(shape, shared_up(shape, at.layer, at.shared), items);
    shared_activation(shape, at, Pass::Forward, items);
    linear_forward(shape, shared_down(shape, at.layer, at.shared), items);
  }
  items.add(gemm(OperatorName::Router, Pass::Forward, at.layer.activation_precision,
                 at.layer.split_tokens, model.experts.count, at.layer.hidden));
  choose(shape, at, Pass::Forward, items);
  const double sent = dispatched_bytes(shape, at), made = at.layer.element_bytes;
  cast_tokens(shape, at, Pass::Forward, items);
  permute(shape, at, Pass::Forward, sent, items);
  all_to_all(shape, at, OperatorName::ExpertUp, Pass::Forward, sent, items);
  share_rows(shape, at, CollectiveKind::AllGather, Pass::Forward, items);
  sort_rows(shape, at, Pass::Forward, sent, items);
  grouped_forward(shape, at, expert_up(shape, at), items);
  store_inputs(shape, at, Pass::Forward, items);
  activation_pass(shape, at, Pass::Forward, items);
  grouped_forward(shape, at, expert_down(shape, at), items);
  sort_rows(shape, at, Pass::Forward, made, items);
  share_rows(shape, at, CollectiveKind::ReduceScatter, Pass::Forward, items);
  all_to_all(shape, at, OperatorName::ExpertDown, Pass::Forward, made, items);
  permute(shape, at, Pass::Forward, made, items);
  if (at.shared > 0) add_shared(at, Pass::Forward, items);
}

void experts_backward(const LayerShape& shape, ItemList& items) {
  const ExpertWidths at(shape);
  const Model& model = shape.model;
  const double sent = dispatched_bytes(shape, at), made = at.layer.element_bytes;
  cast_tokens(shape, at, Pass::InputGradient, items);
  permute(shape, at, Pass::InputGradient, sent, items);
  all_to_all(shape, at, OperatorName::ExpertDown, Pass::InputGradient, sent, items);
  share_rows(shape, at, CollectiveKind::AllGather, Pass::InputGradient, items);
  sort_rows(shape, at, Pass::InputGradient, sent, items);
  grouped_backward(shape, at, expert_down(shape, at), items);
  activation_pass(shape, at, Pass::InputGradient, items);
  grouped_backward(shape, at, expert_up(shape, at), items);
  sort_rows(shape, at, Pass::InputGradient, made, items);
  share_rows(shape, at, CollectiveKind::ReduceScatter, Pass::InputGradient, items);
  all_to_all(shape, at, OperatorName::ExpertUp, Pass::InputGradient, made, items);
  permute(shape, at, Pass::InputGradient, made, items);
  choose(shape, at, Pass::InputGradient, items);
  const std::int64_t tokens = at.layer.split_tokens, count = model.experts.count;
  items.add(gemm(OperatorName::Router, Pass::InputGradient, at.layer.activation_precision, tokens,
                 at.layer.hidden, count));
  items.add(gemm(OperatorName::Router, Pass::WeightGradient, at.layer.activation_precision, count,
                 at.layer.hidden, tokens, shape.gradient_precision == Precision::Fp32));
  if (at.shared == 0) return;
  linear_backward(shape, shared_down(shape, at.layer, at.shared), items);
  shared_activation(shape, at, Pass::InputGradient, items);
  linear_backward(shape, shared_up(shape, at.layer, at.shared), items);
  add_shared(at, Pass::InputGradient, items);
}

void repeat_experts(const LayerShape& shape, const RepeatedParts& repeated, ItemList& items) {
  ItemList again;
  const ExpertWidths at(shape);
  store_inputs(shape, at, Pass::InputGradient, items);
  if (repeated.ffn) {
    experts_forward(shape, again);
  } else if (repeated.ffn_activation) {
    activation_pass(shape, at, Pass::Forward, again);
    if (at.shared > 0) shared_activation(shape, at, Pass::Forward, again);
    if (!transposes_later(shape))
      cast_rows(shape,
                at.rows * static_cast<double>(at.ffn) +
                    static_cast<double>(at.layer.tokens) * static_cast<double>(at.shared),
                Pass::Forward, again);
  }
  items.append(again.take(), true);
}

/// The last grouped product and what follows it are needed by nobody: repeating stops before.
void repeat_expert_operators(const LayerShape& shape, ItemList& items) {
  const ExpertWidths at(shape);
  if (at.shared > 0) {
    if (shape.sequence_parallel)
      items.row_collective(
          at.layer, CollectiveKind::AllGather, OperatorName::FfnUp, Pass::Forward,
          at.layer.element_bytes * static_cast<double>(at.layer.tokens * at.layer.hidden));
    if (shape.model.activation == Activation::Swiglu)
      items.add(gemm(OperatorName::FfnUp, Pass::Forward, product_precision(at.layer),
                     at.layer.tokens, at.shared, at.layer.hidden));
    shared_activation(shape, at, Pass::Forward, items);
  }
  items.add(gemm(OperatorName::Router, Pass::Forward, at.layer.activation_precision,
                 at.layer.split_tokens, shape.model.experts.count, at.layer.hidden));
  choose(shape, at, Pass::Forward, items);
  const double sent = dispatched_bytes(shape, at);
  cast_tokens(shape, at, Pass::Forward, items);
  permute(shape, at, Pass::Forward, sent, items);
  share_rows(shape, at, CollectiveKind::AllGather, Pass::Forward, items);
  sort_rows(shape, at, Pass::Forward, sent, items);
  grouped_forward(shape, at, expert_up(shape, at), items);
  activation_pass(shape, at, Pass::Forward, items);
}

void operator_wise_expert_tensors(const LayerShape& shape, std::vector<SavedTensor>& kept) {
  const ExpertWidths at(shape);
  const double byte = at.layer.element_bytes;
  const auto hidden = static_cast<double>(at.layer.hidden);
  if (shape.ep > 1) {
    kept.push_back({"dispatched rows", byte * at.sent_rows * hidden});
    kept.push_back({"combined rows", byte * at.tokens * shape.model.experts.active * hidden});
  }
  if (at.shared == 0) return;
  const auto width = static_cast<double>(at.layer.tokens * at.shared);
  kept.push_back({"shared ffn_up result", byte * width});
  if (shape.model.activation == Activation::Swiglu)
    kept.push_back({"shared ffn_down result", byte * at.tokens * hidden});
}

double expert_parameters_per_rank(const LayerShape& shape) {
  if (shape.model.experts.count == 0) return 0;
  const ExpertWidths at(shape);
  double each = static_cast<double>(at.layer.hidden * (at.up + at.ffn));
  if (shape.model.linear_bias) each += static_cast<double>(at.up + at.layer.hidden);
  return static_cast<double>(at.experts) * each;
}

double router_and_shared_parameters(const LayerShape& shape) {
  const ExpertWidths at(shape);
  double count = static_cast<double>(at.layer.hidden) * shape.model.experts.count;
  count += static_cast<double>(at.layer.hidden * (at.shared_up + at.shared));
  if (shape.model.linear_bias && at.shared > 0)
    count += static_cast<double>(at.shared_up + at.layer.hidden);
  return count;
}

double expert_fp8_elements(const LayerShape& shape) {
  const ExpertWidths at(shape);
  return static_cast<double>(at.layer.hidden) *
         (static_cast<double>(at.experts * (at.up + at.ffn)) +
          static_cast<double>(at.shared_up + at.shared));
}

void expert_tensors(const LayerShape& shape, const RepeatedParts& repeated,
                    std::vector<SavedTensor>& kept) {
  const ExpertWidths at(shape);
  const double byte = at.layer.element_bytes, linear = at.layer.kept_bytes;
  const auto hidden = static_cast<double>(at.layer.hidden), ffn = static_cast<double>(at.ffn);
  const auto whole = static_cast<double>(at.layer.tokens);
  if (!repeated.norm) kept.push_back({"router input", byte * at.tokens * hidden});
  kept.push_back({"router probabilities", kFp32Bytes * at.tokens * shape.model.experts.count});
  kept.push_back({"expert_up input", linear * at.rows * hidden});
  kept.push_back({"routing weights", kFp32Bytes * at.rows});
  const double inputs = stored_bytes(shape, shape.store.ffn_activation, byte);
  if (!repeated.ffn)
    kept.push_back({"expert_activation input", inputs * at.rows * static_cast<double>(at.up)});
  if (!repeated.ffn && !repeated.ffn_activation)
    kept.push_back({"expert_down input", linear * at.rows * ffn});
  if (at.shared == 0) return;
  if (at.layer.fp8 && !repeated.norm)  // beside the router's in 16 bits
    kept.push_back({"shared ffn_up input", linear * at.tokens * hidden});
  if (repeated.ffn) return;
  kept.push_back({"shared activation input", inputs * whole * static_cast<double>(at.shared_up)});
  if (!repeated.ffn_activation)
    kept.push_back({"shared ffn_down input", linear * whole * static_cast<double>(at.shared)});
}

double expert_workspace_bytes(const LayerShape& shape) {
  const ExpertWidths at(shape);
  const auto up = static_cast<double>(at.up), ffn = static_cast<double>(at.ffn);
  const auto hidden = static_cast<double>(at.layer.hidden);
  // Gradients alive together: around the activation function, and around either product.
  return at.layer.element_bytes * at.rows * std::max(ffn + up, std::max(up, ffn) + hidden);
}

double expert_kept_for_weights_elements(const LayerShape& shape) {
  const ExpertWidths at(shape);
  const auto hidden = static_cast<double>(at.layer.hidden);
  const double grouped = at.rows * (2 * hidden + static_cast<double>(at.up + at.ffn));
  const double router = at.tokens * (hidden + shape.model.experts.count);
  const double shared =
      static_cast<double>(at.layer.tokens) * static_cast<double>(at.shared_up + at.shared) +
      (at.shared > 0 ? at.tokens * hidden : 0);
  return grouped + router + shared;
}

}  // namespace rehearse
