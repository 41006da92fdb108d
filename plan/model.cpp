#include "plan/model.h"

#include "plan/ensure.h"
#include "plan/mixture.h"

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

/// Latent attention: down to both latents with their norms, up to whole heads, and the output.
std::int64_t latent_matrices(const Model& model) {
  const LatentAttention& latent = model.latent;
  const std::int64_t hidden = model.hidden, heads = model.heads;
  const std::int64_t queries = heads * (model.head_dim + latent.rope_dim);
  std::int64_t count = hidden * (latent.kv_rank + latent.rope_dim) +
                       latent.kv_rank * heads * (model.head_dim + latent.value_dim) +
                       heads * latent.value_dim * hidden;
  count += latent.query_rank > 0 ? latent.query_rank * (hidden + queries) : hidden * queries;
  return count;
}

std::int64_t attention_matrices(const Model& model) {
  if (is_latent(model)) return latent_matrices(model);
  const std::int64_t hidden = model.hidden;
  return hidden * qkv_width(model) + query_width(model) * hidden;
}

std::int64_t attention_parameters(const Model& model) {
  std::int64_t count = attention_matrices(model);
  if (is_latent(model)) return count + model.latent.kv_rank + model.latent.query_rank;  // norms
  if (model.linear_bias || model.qkv_bias) count += qkv_width(model);
  if (model.linear_bias) count += model.hidden;
  return count;
}

/// One feed-forward block of this width.
std::int64_t block_parameters(const Model& model, std::int64_t ffn) {
  const std::int64_t hidden = model.hidden;
  const int matrices = ffn_matrices(model);
  std::int64_t count = matrices * hidden * ffn;
  if (model.linear_bias) count += (matrices - 1) * ffn + hidden;
  return count;
}

/// The feed-forward part of a layer with `experts` routed ones, or of a dense one.
std::int64_t mlp_parameters(const Model& model, int experts) {
  if (model.experts.count == 0) return block_parameters(model, model.ffn);
  std::int64_t count = static_cast<std::int64_t>(model.hidden) * model.experts.count;  // router
  count += experts * block_parameters(model, expert_width(model));
  if (model.experts.shared_ffn > 0) count += block_parameters(model, model.experts.shared_ffn);
  return count;
}

std::int64_t norm_parameters(const Model& model) {
  return (model.norm == Norm::LayerNorm ? 2 : 1) * static_cast<std::int64_t>(model.hidden);
}

int expert_layers(const Model& model) {
  return model.experts.count > 0 ? model.layers - model.experts.leading_dense : 0;
}

/// Columns of the feed-forward block that one token passes.
double passed_width(const Model& model) {
  const Experts& experts = model.experts;
  if (experts.count == 0) return model.ffn;
  return static_cast<double>(experts.active) * expert_width(model) + experts.shared_ffn;
}

/// Forward FLOPs of one layer for one token.
double layer_forward_flops(const Model& model, int seq_len, AttentionCount count) {
  const double hidden = model.hidden;
  const double matrices = static_cast<double>(attention_matrices(model)) +
                          ffn_matrices(model) * hidden * passed_width(model) +
                          hidden * model.experts.count;
  // Scores and weighted values are two products of seq_len × head size a query and head.
  const double sizes = is_latent(model)
                           ? model.head_dim + model.latent.rope_dim + model.latent.value_dim
                           : 2.0 * model.head_dim;
  const double square = 2.0 * seq_len * model.heads * sizes;
  return 2 * matrices + (count == AttentionCount::CausalHalf ? square / 2 : square);
}

/// Forward FLOPs of all layers for one token.
double layers_forward_flops(const Model& model, int seq_len, AttentionCount count) {
  const int mixtures = expert_layers(model);
  return mixtures * layer_forward_flops(model, seq_len, count) +
         (model.layers - mixtures) * layer_forward_flops(without_experts(model), seq_len, count);
}

/// Forward FLOPs of the layer of a module that predicts a further token, and of all of it but the
/// head.
double mtp_layer_forward_flops(const Model& model, int seq_len, AttentionCount count) {
  const bool is_mixture = expert_layers(model) > 0;
  return layer_forward_flops(is_mixture ? model : without_experts(model), seq_len, count);
}
double mtp_forward_flops(const Model& model, int seq_len, AttentionCount count) {
  return mtp_layer_forward_flops(model, seq_len, count) + 4.0 * model.hidden * model.hidden;
}

/// Of a module that predicts a further token: a layer like the last, the product of two streams
/// side by side, and three norms.
std::int64_t mtp_parameters(const Model& model, int experts) {
  const std::int64_t hidden = model.hidden;
  const bool is_mixture = expert_layers(model) > 0;
  const std::int64_t mlp =
      is_mixture ? mlp_parameters(model, experts) : mlp_parameters(without_experts(model), 0);
  return attention_parameters(model) + mlp + 2 * hidden * hidden + 5 * norm_parameters(model);
}

ParameterCount count_with(const Model& model, int vocab_size, int experts) {
  const std::int64_t table = static_cast<std::int64_t>(vocab_size) * model.hidden;
  const int mixtures = expert_layers(model);
  ParameterCount count;
  count.embedding = table;
  if (model.positions == Positions::Learned)
    count.embedding += static_cast<std::int64_t>(model.max_seq_len) * model.hidden;
  count.attention = model.layers * attention_parameters(model);
  count.mlp = mixtures * mlp_parameters(model, experts) +
              (model.layers - mixtures) * mlp_parameters(without_experts(model), 0);
  count.norms = (2 * static_cast<std::int64_t>(model.layers) + 1) * norm_parameters(model);
  count.head = model.tied_embeddings ? 0 : table;
  count.mtp = model.mtp_layers * mtp_parameters(model, experts);
  return count;
}

}  // namespace

Model without_experts(const Model& model) {
  Model dense = model;
  dense.experts = {};
  return dense;
}

std::int64_t layer_parameters(const Model& model) {
  return attention_parameters(model) + mlp_parameters(model, model.experts.count) +
         2 * norm_parameters(model);
}

ParameterCount count_parameters(const Model& model, int vocab_size) {
  return count_with(model, vocab_size, model.experts.count);
}

ParameterCount active_parameters(const Model& model) {
  return count_with(model, model.vocab, model.experts.active);
}

double training_flops(const Model& model, double tokens, int seq_len, AttentionCount count) {
  const double head = 2.0 * model.hidden * model.vocab;
  return 3 * tokens *
         (layers_forward_flops(model, seq_len, count) + head +
          model.mtp_layers * (mtp_forward_flops(model, seq_len, count) + head));
}

double recomputation_flops(const Model& model, double tokens, int seq_len, AttentionCount count) {
  return tokens * (layers_forward_flops(model, seq_len, count) +
                   model.mtp_layers * mtp_layer_forward_flops(model, seq_len, count));
}

int padded_vocab(const Model& model, int tp, int multiple) {
  ensure(tp >= 1 && multiple >= 1, "padding needs a positive multiple");
  const int unit = multiple * tp;
  return (model.vocab + unit - 1) / unit * unit;
}

}  // namespace rehearse
