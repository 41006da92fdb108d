#include "tests/kernels/ops/small_model.h"

#include "plan/ensure.h"

namespace rehearse {

SmallModel::SmallModel(const Model& model, DType dtype, Random& random, ComputeDevice& device)
    : device_(device),
      model_(model),
      dtype_(dtype),
      wide_(dtype == DType::F64 ? DType::F64 : DType::F32) {
  const std::int64_t h = model.hidden, f = model.ffn;
  const std::int64_t attention = std::int64_t{model.heads} * model.head_dim;
  const std::int64_t fused = attention + 2 * std::int64_t{model.kv_heads} * model.head_dim;
  const std::int64_t up = model.activation == Activation::Swiglu ? 2 * f : f;
  const auto add = [&](const std::string& name, TensorShape shape, double deviation, double mean) {
    HostTensor tensor = random_tensor(random, dtype, shape, deviation);
    for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.set(i, tensor.at(i) + mean);
    weights_[name] = tensor;
  };
  const auto add_norm = [&](const std::string& name) {
    add(name + ".weight", {h}, 0.2, 1);
    if (is_layer_norm()) add(name + ".bias", {h}, 0.2, 0);
  };
  const auto add_linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}, 1 / std::sqrt(static_cast<double>(in)), 0);
    if (model.linear_bias) add(name + ".bias", {out}, 0.2, 0);
  };
  add("embedding", {model.vocab, h}, 0.5, 0);
  if (model.positions == Positions::Learned) add("positions", {model.max_seq_len, h}, 0.5, 0);
  for (int l = 0; l < model.layers; ++l) {
    const std::string prefix = "layer" + std::to_string(l);
    add_norm(prefix + ".norm1");
    add_linear(prefix + ".qkv", fused, h);
    add_linear(prefix + ".projection", h, attention);
    add_norm(prefix + ".norm2");
    add_linear(prefix + ".up", up, h);
    add_linear(prefix + ".down", h, f);
  }
  add_norm("final_norm");
  if (!model.tied_embeddings)
    add("head", {model.vocab, h}, 1 / std::sqrt(static_cast<double>(h)), 0);
}

HostTensor& SmallModel::gradient(const std::string& name) {
  auto [entry, is_new] = gradients_.try_emplace(name);
  if (is_new) entry->second = empty_wide(weight(name).shape());
  return entry->second;
}

HostTensor SmallModel::linear(const HostTensor& x, const std::string& name) {
  const HostTensor& w = weight(name + ".weight");
  HostTensor out = empty({x.size(0), w.size(0)});
  Gemm call{.a = x, .b = w, .out = out, .transpose_b = true};
  if (model_.linear_bias) {
    call.epilogue = Epilogue::Bias;
    call.bias = weight(name + ".bias");
  }
  run(call);
  return out;
}

HostTensor SmallModel::linear_backward(const HostTensor& x, const HostTensor& d_out,
                                       const std::string& name, bool has_bias) {
  const std::string matrix = has_bias ? name + ".weight" : name;
  HostTensor d_x = empty(x.shape());
  run(Gemm{.a = d_out, .b = weight(matrix), .out = d_x});
  run(Gemm{.a = d_out, .b = x, .out = gradient(matrix), .transpose_a = true, .accumulate = true});
  if (has_bias && model_.linear_bias)
    run(ColumnSum{.x = d_out, .out = gradient(name + ".bias"), .accumulate = true});
  return d_x;
}

void SmallModel::norm(const HostTensor& x, const std::string& name, HostTensor& out,
                      HostTensor& mean, HostTensor& inverse, const HostTensor* residual,
                      HostTensor* sum) {
  const std::int64_t rows = x.size(0);
  out = empty(x.shape());
  mean = empty_wide({rows});
  inverse = empty_wide({rows});
  NormForward call{.kind = model_.norm,
                   .x = x,
                   .weight = weight(name + ".weight"),
                   .out = out,
                   .inverse_deviation = inverse};
  if (is_layer_norm()) {
    call.bias = weight(name + ".bias");
    call.mean = mean;
  }
  if (residual != nullptr) {
    *sum = empty(x.shape());
    call.residual = *residual;
    call.sum = *sum;
  }
  run(call);
}

HostTensor SmallModel::norm_backward(const HostTensor& x, const HostTensor& d_out,
                                     const std::string& name, const HostTensor& mean,
                                     const HostTensor& inverse, const HostTensor* d_residual) {
  HostTensor d_x = empty(x.shape());
  NormBackward call{.kind = model_.norm,
                    .d_out = d_out,
                    .x = x,
                    .weight = weight(name + ".weight"),
                    .inverse_deviation = inverse,
                    .d_x = d_x,
                    .d_weight = gradient(name + ".weight"),
                    .accumulate = true};
  if (is_layer_norm()) {
    call.mean = mean;
    call.d_bias = gradient(name + ".bias");
  }
  if (d_residual != nullptr) call.d_residual = *d_residual;
  run(call);
  return d_x;
}

namespace {

TensorView heads_of(HostTensor& tensor, const Model& model) {
  return reshaped(tensor.view(), {tensor.size(0), tensor.size(1) / model.head_dim, model.head_dim});
}

/// Queries, keys and values inside a fused projection.
struct Heads {
  TensorView query, key, value;
};
Heads split(HostTensor& qkv, const Model& model) {
  const TensorView all = heads_of(qkv, model);
  return {slice_columns(all, 0, model.heads), slice_columns(all, model.heads, model.kv_heads),
          slice_columns(all, model.heads + model.kv_heads, model.kv_heads)};
}

AttentionShape attention_shape(const Model& model, const HostTensor& offsets, std::int64_t length) {
  return {.query_offsets = offsets,
          .key_offsets = offsets,
          .max_query_length = length,
          .max_key_length = length,
          .causal = true,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(model.head_dim)))};
}

}  // namespace

void SmallModel::rotate(HostTensor& qkv, bool inverse) {
  if (model_.positions != Positions::Rotary) return;
  const TensorView rotated =
      slice_columns(heads_of(qkv, model_), 0, model_.heads + model_.kv_heads);
  run(Rope{.x = rotated, .cosine_sine = table_, .positions = positions_, .inverse = inverse});
}

void SmallModel::layer_forward(LayerActivations& layer, const std::string& prefix) {
  norm(layer.input, prefix + ".norm1", layer.normed1, layer.mean1, layer.inverse1, nullptr,
       nullptr);
  layer.qkv = linear(layer.normed1, prefix + ".qkv");
  rotate(layer.qkv, false);
  const std::int64_t rows = layer.input.size(0);
  layer.attention = empty({rows, std::int64_t{model_.heads} * model_.head_dim});
  layer.lse = empty_wide({model_.heads, rows});
  const Heads heads = split(layer.qkv, model_);
  run(AttentionForward{.query = heads.query,
                       .key = heads.key,
                       .value = heads.value,
                       .out = heads_of(layer.attention, model_),
                       .log_sum_exp = layer.lse,
                       .shape = attention_shape(model_, offsets_, seq_len_)});
  layer.projected = linear(layer.attention, prefix + ".projection");
  norm(layer.projected, prefix + ".norm2", layer.normed2, layer.mean2, layer.inverse2, &layer.input,
       &layer.sum);
  layer.up = linear(layer.normed2, prefix + ".up");
  layer.activated = empty({rows, model_.ffn});
  run(ActivationForward{.kind = model_.activation, .x = layer.up, .out = layer.activated});
  const HostTensor down = linear(layer.activated, prefix + ".down");
  layer.output = empty(down.shape());
  run(Add{.a = layer.sum, .b = down, .out = layer.output});
}

HostTensor SmallModel::layer_backward(LayerActivations& layer, const HostTensor& d_output,
                                      const std::string& prefix) {
  const HostTensor d_activated = linear_backward(layer.activated, d_output, prefix + ".down", true);
  HostTensor d_up = empty(layer.up.shape());
  run(ActivationBackward{
      .kind = model_.activation, .x = layer.up, .d_out = d_activated, .d_x = d_up});
  const HostTensor d_normed2 = linear_backward(layer.normed2, d_up, prefix + ".up", true);
  const HostTensor d_sum = norm_backward(layer.sum, d_normed2, prefix + ".norm2", layer.mean2,
                                         layer.inverse2, &d_output);
  HostTensor d_attention = linear_backward(layer.attention, d_sum, prefix + ".projection", true);
  HostTensor d_qkv = empty(layer.qkv.shape());
  const Heads heads = split(layer.qkv, model_), slopes = split(d_qkv, model_);
  run(AttentionBackward{.d_out = heads_of(d_attention, model_),
                        .query = heads.query,
                        .key = heads.key,
                        .value = heads.value,
                        .out = heads_of(layer.attention, model_),
                        .log_sum_exp = layer.lse,
                        .d_query = slopes.query,
                        .d_key = slopes.key,
                        .d_value = slopes.value,
                        .shape = attention_shape(model_, offsets_, seq_len_)});
  rotate(d_qkv, true);
  const HostTensor d_normed1 = linear_backward(layer.normed1, d_qkv, prefix + ".qkv", true);
  return norm_backward(layer.input, d_normed1, prefix + ".norm1", layer.mean1, layer.inverse1,
                       &d_sum);
}

double SmallModel::loss(const HostTensor& tokens, const HostTensor& targets, std::int64_t seq_len) {
  const std::int64_t rows = tokens.size(0), d = model_.head_dim;
  seq_len_ = seq_len;
  tokens_ = tokens;
  targets_ = targets;
  positions_ = HostTensor(DType::I32, {rows});
  for (std::int64_t t = 0; t < rows; ++t) positions_.set(t, static_cast<double>(t % seq_len));
  offsets_ = HostTensor(DType::I32, {rows / seq_len + 1});
  for (std::int64_t s = 0; s <= rows / seq_len; ++s)
    offsets_.set(s, static_cast<double>(s * seq_len));
  table_ = empty_wide({seq_len, d});
  for (std::int64_t p = 0; p < seq_len; ++p)
    for (std::int64_t i = 0; i < d / 2; ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(d);
      const double angle = static_cast<double>(p) * std::pow(10000.0, -2 * share);
      table_.set(p * d + i, std::cos(angle));
      table_.set(p * d + d / 2 + i, std::sin(angle));
    }
  embedded_ = empty({rows, model_.hidden});
  EmbeddingForward embed{.tokens = tokens_, .table = weight("embedding"), .out = embedded_};
  if (model_.positions == Positions::Learned) {
    embed.position_table = weight("positions");
    embed.positions = positions_;
  }
  run(embed);
  layers_.assign(static_cast<std::size_t>(model_.layers), {});
  const HostTensor* x = &embedded_;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].input = *x;
    layer_forward(layers_[l], "layer" + std::to_string(l));
    x = &layers_[l].output;
  }
  norm(*x, "final_norm", final_normed_, final_mean_, final_inverse_, nullptr, nullptr);
  logits_ = empty({rows, model_.vocab});
  const HostTensor& head = weight(model_.tied_embeddings ? "embedding" : "head");
  run(Gemm{.a = final_normed_, .b = head, .out = logits_, .transpose_b = true});
  maximum_ = empty_wide({rows});
  sum_ = empty_wide({rows});
  hit_ = empty_wide({rows});
  run(CrossEntropyForward{.logits = logits_,
                          .targets = targets_,
                          .vocabulary = model_.vocab,
                          .maximum = maximum_,
                          .sum = sum_,
                          .target_logit = hit_});
  double loss = 0;
  for (std::int64_t t = 0; t < rows; ++t)
    loss += (std::log(sum_.at(t)) + maximum_.at(t) - hit_.at(t)) / static_cast<double>(rows);
  return loss;
}

SmallModel::Tensors SmallModel::gradients() {
  gradients_.clear();
  const std::int64_t rows = tokens_.size(0);
  const HostTensor scale = constant_tensor(wide_, {rows}, 1.0 / static_cast<double>(rows));
  HostTensor losses = empty_wide({rows}), d_logits = logits_;
  run(CrossEntropyBackward{.logits = d_logits,
                           .targets = targets_,
                           .vocabulary = model_.vocab,
                           .maximum = maximum_,
                           .sum = sum_,
                           .target_logit = hit_,
                           .loss_scale = scale,
                           .loss = losses});
  const HostTensor d_normed = linear_backward(final_normed_, d_logits,
                                              model_.tied_embeddings ? "embedding" : "head", false);
  HostTensor d_x = norm_backward(layers_.back().output, d_normed, "final_norm", final_mean_,
                                 final_inverse_, nullptr);
  for (std::size_t l = layers_.size(); l-- > 0;)
    d_x = layer_backward(layers_[l], d_x, "layer" + std::to_string(l));
  run(EmbeddingBackward{.tokens = tokens_, .d_out = d_x, .d_table = gradient("embedding")});
  if (model_.positions == Positions::Learned)
    run(EmbeddingBackward{.tokens = positions_, .d_out = d_x, .d_table = gradient("positions")});
  return gradients_;
}

}  // namespace rehearse
