// Multi-head latent attention as training computes it: keys and values whole, nothing absorbed.
//   x → down (both latents and the common rotated key, one product) → norms of the latents
//     → queries up, keys and values up → rope → attention → output
// Heads have q and k of n + r elements (n without, r with rotation) and v of their own size.
//
// Tensor ranks split the heads. The product down is whole on each (Megatron-LM): of the rank's
// share of the sequence where that is split, and the latents are then gathered; its weights'
// gradients are small and summed with the norms'.

#include "kernels/latent_attention.h"

#include <algorithm>

#include "plan/mixture.h"

namespace rehearse {
namespace {

constexpr double kFp32Bytes = 4;

Linear queries_up(const LayerShape& shape, const LatentWidths& at) {
  const bool has_latent = at.query_rank > 0;
  return {.name = OperatorName::QueryUp,
          .in = has_latent ? at.query_rank : at.layer.hidden,
          .out = at.queries,
          .column_parallel = true,
          .bias = false,
          .fp8 = at.layer.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

Linear keys_up(const LayerShape& shape, const LatentWidths& at) {
  return {.name = OperatorName::KeyValueUp,
          .in = at.kv_rank,
          .out = at.up,
          .column_parallel = true,
          .bias = false,
          .fp8 = at.layer.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

Linear output(const LayerShape&, const LatentWidths& at) {
  return {.name = OperatorName::AttentionOutput,
          .in = at.values,
          .out = at.layer.hidden,
          .column_parallel = false,
          .bias = false,
          .fp8 = at.layer.fp8_output};
}

/// Whole on every tensor rank, on the rank's share of the sequence (`own_share`).
Linear down(const LayerShape& shape, const LatentWidths& at) {
  return {.name = OperatorName::LatentDown,
          .in = at.layer.hidden,
          .out = at.down,
          .column_parallel = true,
          .bias = false,
          .fp8 = at.layer.fp8,
          .repeated_input = repeated_parts(shape).norm};
}

/// The common rotated key travels with the latents where the sequence is split; without, its
/// gradient is summed over the heads of all ranks.
void common_key(const LayerShape& shape, const LatentWidths& at, Pass pass, ItemList& items) {
  if (at.layer.columns == 1) return;
  const double bytes = at.layer.element_bytes * static_cast<double>(at.layer.tokens * at.rope);
  if (pass == Pass::Forward) {
    if (shape.sequence_parallel)
      items.collective(CollectiveKind::AllGather, OperatorName::LatentDown, pass, bytes);
    return;
  }
  items.collective(
      shape.sequence_parallel ? CollectiveKind::ReduceScatter : CollectiveKind::AllReduce,
      OperatorName::LatentDown, pass, bytes);
}

double latent_elements(const LatentWidths& at) {
  return static_cast<double>(at.layer.split_tokens) *
         static_cast<double>(at.query_rank + at.kv_rank);
}

void latent_norms(const LatentWidths& at, Pass pass, ItemList& items) {
  const double elements = latent_elements(at);
  const bool forward = pass == Pass::Forward;
  items.add(memory_operator(OperatorName::Norm, pass,
                            (forward ? 2 : 3) * at.layer.element_bytes * elements,
                            (forward ? 4 : 11) * elements));
}

/// Rotated parts of queries and of the one common key, which is copied to every head beside the
/// keys' own parts.
void rope(const LatentWidths& at, Pass pass, ItemList& items) {
  const auto tokens = static_cast<double>(at.layer.tokens);
  const double rotated = tokens * static_cast<double>((at.layer.heads + 1) * at.rope);
  const double keys = tokens * static_cast<double>(at.queries);
  items.add(memory_operator(OperatorName::Rope, pass, 2 * at.layer.element_bytes * (rotated + keys),
                            3 * rotated));
}

/// Whole queries, keys and values from the latents.
void make_heads(const LayerShape& shape, const LatentWidths& at, ItemList& items) {
  linear_forward(shape, queries_up(shape, at), items);
  linear_forward(shape, keys_up(shape, at), items);
  common_key(shape, at, Pass::Forward, items);
  rope(at, Pass::Forward, items);
}

/// One flash kernel with values of another size than keys. It is priced at the head size that
/// makes as many FLOPs: forward two products (q·k and p·v), backward five, three of which have
/// the keys' size and two the values'.
Operator core(const LayerShape& shape, const LatentWidths& at, Pass pass) {
  const bool forward = pass == Pass::Forward;
  const std::int64_t twice = at.key_size + at.value_size;
  const std::int64_t size =
      forward ? (twice + 1) / 2 : (3 * at.key_size + 2 * at.value_size + 2) / 5;
  const std::int64_t queries = shape.seq_len / shape.cp;
  Operator op = attention(pass, at.layer.activation_precision, shape.micro_batch, queries,
                          shape.seq_len, at.layer.heads, at.layer.heads, size, true);
  const double pairs = static_cast<double>(shape.micro_batch * at.layer.heads * queries) *
                       static_cast<double>(shape.seq_len) / 2;
  const auto key = static_cast<double>(at.key_size), value = static_cast<double>(at.value_size);
  op.flops = pairs * 2 * (forward ? key + value : 3 * key + 2 * value);
  const auto own = static_cast<double>(shape.micro_batch * at.layer.heads * queries);
  const auto others = static_cast<double>(shape.micro_batch * at.layer.heads * shape.seq_len);
  const double element = at.layer.element_bytes;
  const double once = element * (own + others) * (key + value) + kFp32Bytes * own;
  op.bytes = forward ? once : once + element * (own + others) * (key + value) + 8 * own * key;
  return with_pairs(op, shape.pair_share);
}

double result_elements(const LatentWidths& at) {
  return static_cast<double>(at.layer.tokens) * static_cast<double>(at.values);
}

}  // namespace

LatentWidths::LatentWidths(const LayerShape& shape) : layer(shape) {
  const LatentAttention& latent = shape.model.latent;
  query_rank = latent.query_rank;
  kv_rank = latent.kv_rank;
  rope = latent.rope_dim;
  down = query_rank + kv_rank + rope;
  key_size = shape.model.head_dim + rope;
  value_size = latent.value_dim;
  queries = layer.heads * key_size;
  values = layer.heads * value_size;
  up = layer.heads * (shape.model.head_dim + value_size);
}

void latent_core_forward(const LayerShape& shape, ItemList& items) {
  items.add(core(shape, LatentWidths(shape), Pass::Forward));
}

void latent_forward(const LayerShape& shape, ItemList& items) {
  const LatentWidths at(shape);
  linear_forward(own_share(shape), down(shape, at), items);
  latent_norms(at, Pass::Forward, items);
  make_heads(shape, at, items);
  latent_core_forward(shape, items);
  add_store(shape, shape.store.attention_result, result_elements(at), Pass::Forward, items);
  linear_forward(shape, output(shape, at), items);
}

void latent_backward(const LayerShape& shape, ItemList& items) {
  const LatentWidths at(shape);
  add_store(shape, shape.store.attention_result, result_elements(at), Pass::InputGradient, items);
  linear_backward(shape, output(shape, at), items);
  const RepeatedParts repeated = repeated_parts(shape);
  ItemList again;
  if (repeated.norm) {
    latent_norms(at, Pass::Forward, again);
    if (at.layer.fp8 && !repeated.latent_up && !transposes_later(shape))
      add_cast(shape, latent_elements(at), Pass::Forward, again);
  }
  if (repeated.latent_up) make_heads(shape, at, again);
  if (repeated.attention) latent_core_forward(shape, again);
  items.append(again.take(), true);
  items.add(core(shape, at, Pass::InputGradient));
  rope(at, Pass::InputGradient, items);
  common_key(shape, at, Pass::InputGradient, items);
  linear_backward(shape, keys_up(shape, at), items);
  linear_backward(shape, queries_up(shape, at), items);
  latent_norms(at, Pass::InputGradient, items);
  linear_backward(own_share(shape), down(shape, at), items);
}

double latent_parameters(const LayerShape& shape) {
  const LatentWidths at(shape);
  const Linear up = queries_up(shape, at);
  return static_cast<double>(at.layer.hidden * (at.down + at.values) + up.in * up.out +
                             at.kv_rank * at.up + at.query_rank + at.kv_rank);
}

double latent_fp8_elements(const LayerShape& shape) {
  const LatentWidths at(shape);
  const std::int64_t out = at.layer.fp8_output ? at.layer.hidden * at.values : 0;
  const Linear up = queries_up(shape, at);
  return static_cast<double>(at.layer.hidden * at.down + out + up.in * up.out + at.kv_rank * at.up);
}

void latent_tensors(const LayerShape& shape, const RepeatedParts& repeated,
                    std::vector<SavedTensor>& kept) {
  const LatentWidths at(shape);
  const double byte = at.layer.element_bytes, linear = at.layer.kept_bytes;
  const auto tokens = static_cast<double>(at.layer.tokens);
  const auto split = static_cast<double>(at.layer.split_tokens);
  const auto latents = static_cast<double>(at.query_rank + at.kv_rank);
  if (!repeated.norm)
    kept.push_back({"latent_down input", linear * split * static_cast<double>(at.layer.hidden)});
  kept.push_back({"latents before their norms", byte * split * latents});
  if (!repeated.norm) kept.push_back({"latents", linear * split * latents});
  if (!repeated.latent_up) {
    kept.push_back({"queries", byte * tokens * static_cast<double>(at.queries)});
    kept.push_back({"keys", byte * tokens * static_cast<double>(at.queries)});
    kept.push_back({"values", byte * tokens * static_cast<double>(at.values)});
  } else {
    kept.push_back({"rotated key", byte * split * static_cast<double>(at.rope)});
  }
  const double result = result_elements(at);
  if (!repeated.attention) {
    kept.push_back(
        {"attention log-sum-exp", kFp32Bytes * tokens * static_cast<double>(at.layer.heads)});
    if (!is_stored(shape, shape.store.attention_result) && at.layer.fp8_output &&
        shape.fp8.weight_gradient)
      kept.push_back({"attention result", byte * result});
  }
  kept.push_back(
      {"attention_output input", result * stored_bytes(shape, shape.store.attention_result,
                                                       at.layer.fp8_output ? linear : byte)});
}

double latent_workspace_bytes(const LayerShape& shape) {
  const LatentWidths at(shape);
  const auto tokens = static_cast<double>(at.layer.tokens);
  const auto queries = static_cast<double>(at.queries), values = static_cast<double>(at.values);
  // Gradients of the result, of queries, keys and values, and the fp32 sum of the queries'.
  return at.layer.element_bytes * tokens * (2 * values + 2 * queries) +
         kFp32Bytes * tokens * queries;
}

double latent_kept_for_weights_elements(const LayerShape& shape) {
  const LatentWidths at(shape);
  const auto tokens = static_cast<double>(at.layer.tokens);
  const auto split = static_cast<double>(at.layer.split_tokens);
  const auto hidden = static_cast<double>(at.layer.hidden);
  const double inputs = split * (hidden + static_cast<double>(at.query_rank + at.kv_rank)) +
                        tokens * static_cast<double>(at.values);
  const double gradients = split * (hidden + static_cast<double>(at.down)) +
                           tokens * static_cast<double>(at.queries + at.up);
  return inputs + gradients;
}

}  // namespace rehearse
