// Mixtures of experts on the Hugging Face hub.
#include "plan/hugging_face_config.h"

namespace rehearse {
namespace {

void read_counts(ConfigObject& config, Model& model, const char* count_key) {
  model.experts.count = config.size(count_key, kMostHeads);
  model.experts.active = config.size("num_experts_per_tok", kMostHeads);
  if (model.experts.active > model.experts.count)
    config.problem("num_experts_per_tok", "a token cannot pass " +
                                              std::to_string(model.experts.active) + " of " +
                                              std::to_string(model.experts.count) + " experts");
}

/// Every layer, or every layer after the first few, is a mixture.
void expect_every_layer(ConfigObject& config, const char* key) {
  if (config.size(key, kMostLayers, 1) != 1)
    config.problem(key, "experts in some of the layers are not modelled here",
                   "set it to 1 to count experts in all of them");
}

}  // namespace

Model read_mixtral(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  read_counts(config, model, "num_local_experts");
  return model;
}

Model read_grok(ConfigObject& config) {
  // A gated GeLU: the same products as SwiGLU, and as many passes over memory.
  Model model = read_llama_like(config);
  read_counts(config, model, "num_experts");
  return model;
}

Model read_deepseek(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  read_counts(config, model, "n_routed_experts");
  expect_every_layer(config, "moe_layer_freq");
  Experts& experts = model.experts;
  experts.ffn = config.size("moe_intermediate_size", kMostFfn);
  if (config.find("n_shared_experts") != nullptr)
    experts.shared_ffn = experts.ffn * config.size("n_shared_experts", kMostHeads);
  experts.leading_dense = config.count("first_k_dense_replace", kMostLayers);
  model.mtp_layers = config.count("num_nextn_predict_layers", kMostMtpLayers);
  LatentAttention& latent = model.latent;
  latent.kv_rank = config.size("kv_lora_rank", kMostHidden);
  if (config.find("q_lora_rank") != nullptr)  // null in the Lite version: no latent
    latent.query_rank = config.size("q_lora_rank", kMostHidden);
  latent.rope_dim = config.size("qk_rope_head_dim", kMostHeads);
  latent.value_dim = config.size("v_head_dim", kMostHeads);
  model.head_dim = config.size("qk_nope_head_dim", kMostHeads);
  return model;
}

Model read_qwen3_moe(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  read_counts(config, model, "num_experts");
  expect_every_layer(config, "decoder_sparse_step");
  model.experts.ffn = config.size("moe_intermediate_size", kMostFfn);
  if (config.flag("use_sliding_window", false))
    config.problem("use_sliding_window", "attention in a sliding window is not modelled here",
                   "set it to false to count attention over the whole sequence");
  return model;
}

}  // namespace rehearse
