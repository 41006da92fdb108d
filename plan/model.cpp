#include "plan/model.h"

#include "plan/ensure.h"

namespace rehearse {
namespace {

std::int64_t query_width(const Model& model) {
  return static_cast<std::int64_t>(model.heads) * model.head_dim;
}

/// Queries, keys and values side by side, as one product makes them.
std::int64_t qkv_width(const Model& model) {
  return (static_cast<std::int64_t>(model.heads) + 2 * model.kv_heads) * model.head_dim;
}

/// Matrices of hidden × ffn in the feed-forward block: SwiGLU has a gate beside up and down.
int ffn_matrices(const Model& model) { return model.activation == Activation::Swiglu ? 3 : 2; }

std::int64_t attention_parameters(const Model& model) {
  const std::int64_t hidden = model.hidden;
  std::int64_t count = hidden * qkv_width(model) + query_width(model) * hidden;
  if (model.linear_bias || model.qkv_bias) count += qkv_width(model);
  if (model.linear_bias) count += hidden;
  return count;
}

std::int64_t mlp_parameters(const Model& model) {
  const std::int64_t hidden = model.hidden, ffn = model.ffn;
  const int matrices = ffn_matrices(model);
  std::int64_t count = matrices * hidden * ffn;
  if (model.linear_bias) count += (matrices - 1) * ffn + hidden;
  return count;
}

std::int64_t norm_parameters(const Model& model) {
  return (model.norm == Norm::LayerNorm ? 2 : 1) * static_cast<std::int64_t>(model.hidden);
}

/// Forward FLOPs of one layer for one token.
double layer_forward_flops(const Model& model, int seq_len, AttentionCount count) {
  const double hidden = model.hidden;
  const double matrices = hidden * static_cast<double>(qkv_width(model)) +
                          static_cast<double>(query_width(model)) * hidden +
                          ffn_matrices(model) * hidden * model.ffn;
  // Scores and weighted values are two products of seq_len × head_dim a query and head.
  const double square = 4.0 * seq_len * static_cast<double>(query_width(model));
  return 2 * matrices + (count == AttentionCount::CausalHalf ? square / 2 : square);
}

}  // namespace

std::int64_t layer_parameters(const Model& model) {
  return attention_parameters(model) + mlp_parameters(model) + 2 * norm_parameters(model);
}

ParameterCount count_parameters(const Model& model, int vocab_size) {
  const std::int64_t table = static_cast<std::int64_t>(vocab_size) * model.hidden;
  ParameterCount count;
  count.embedding = table;
  if (model.positions == Positions::Learned)
    count.embedding += static_cast<std::int64_t>(model.max_seq_len) * model.hidden;
  count.attention = model.layers * attention_parameters(model);
  count.mlp = model.layers * mlp_parameters(model);
  count.norms = (2 * static_cast<std::int64_t>(model.layers) + 1) * norm_parameters(model);
  count.head = model.tied_embeddings ? 0 : table;
  return count;
}

double training_flops(const Model& model, double tokens, int seq_len, AttentionCount count) {
  const double head = 2.0 * model.hidden * model.vocab;
  return 3 * tokens * (model.layers * layer_forward_flops(model, seq_len, count) + head);
}

double recomputation_flops(const Model& model, double tokens, int seq_len, AttentionCount count) {
  return tokens * model.layers * layer_forward_flops(model, seq_len, count);
}

int padded_vocab(const Model& model, int tp, int multiple) {
  ensure(tp >= 1 && multiple >= 1, "padding needs a positive multiple");
  const int unit = multiple * tp;
  return (model.vocab + unit - 1) / unit * unit;
}

}  // namespace rehearse
