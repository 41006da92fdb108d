#include "plan/model_catalogue.h"

namespace rehearse {
namespace {

/// Layers, width and heads of a GPT: LayerNorm, GeLU of width 4·hidden, learned positions, biases
/// and a tied head.
struct GptShape {
  const char* name;
  int layers, hidden, heads;
};

Model gpt(const GptShape& shape, int vocab, int max_seq_len) {
  Model model;
  model.name = shape.name;
  model.layers = shape.layers;
  model.hidden = shape.hidden;
  model.heads = model.kv_heads = shape.heads;
  model.head_dim = shape.hidden / shape.heads;
  model.ffn = 4 * shape.hidden;
  model.vocab = vocab;
  model.max_seq_len = max_seq_len;
  return model;
}

/// RMSNorm, SwiGLU, rotary positions, no biases, head apart from the embedding.
struct LlamaShape {
  const char* name;
  int layers, hidden, heads, kv_heads, ffn;
};

Model llama(const LlamaShape& shape, int vocab, int max_seq_len) {
  Model model;
  model.name = shape.name;
  model.layers = shape.layers;
  model.hidden = shape.hidden;
  model.heads = shape.heads;
  model.kv_heads = shape.kv_heads;
  model.head_dim = shape.hidden / shape.heads;
  model.ffn = shape.ffn;
  model.vocab = vocab;
  model.max_seq_len = max_seq_len;
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.tied_embeddings = false;
  model.linear_bias = false;
  return model;
}

Model qwen2(const LlamaShape& shape) {
  Model model = llama(shape, 152064, 32768);
  model.qkv_bias = true;
  return model;
}

/// Squared ReLU, LayerNorm, rotary positions, grouped heads, no biases, untied.
Model nemotron4(const LlamaShape& shape) {
  Model model = llama(shape, 256000, 4096);
  model.activation = Activation::SquaredRelu;
  model.norm = Norm::LayerNorm;
  return model;
}

void append_gpt(std::vector<Model>& models) {
  // Radford et al. 2019, table 2, with the vocabulary and context of the released checkpoints.
  for (const GptShape& shape :
       {GptShape{"gpt2", 12, 768, 12}, GptShape{"gpt2-medium", 24, 1024, 16},
        GptShape{"gpt2-large", 36, 1280, 20}, GptShape{"gpt2-xl", 48, 1600, 25}})
    models.push_back(gpt(shape, 50257, 1024));
  // Brown et al. 2020 (arXiv 2005.14165), table 2.1. Two rows of that table contradict
  // themselves: 24 heads of 128 do not make the 2048 of the 1.3B model, and 40 heads of 128 make
  // 5120 where 5140 is printed for 13B; here are the shapes that give the printed parameters.
  for (const GptShape& shape :
       {GptShape{"gpt3-125m", 12, 768, 12}, GptShape{"gpt3-350m", 24, 1024, 16},
        GptShape{"gpt3-760m", 24, 1536, 16}, GptShape{"gpt3-1.3b", 24, 2048, 16},
        GptShape{"gpt3-2.7b", 32, 2560, 32}, GptShape{"gpt3-6.7b", 32, 4096, 32},
        GptShape{"gpt3-13b", 40, 5120, 40}, GptShape{"gpt3-175b", 96, 12288, 96}})
    models.push_back(gpt(shape, 50257, 2048));
}

void append_megatron(std::vector<Model>& models) {
  // Narayanan et al. 2021 (arXiv 2104.04473), table 1: vocabulary 51,200, sequences of 2,048.
  // megatron-22b: Korthikanti et al. 2022 (arXiv 2205.05198), table 3.
  for (const GptShape& shape :
       {GptShape{"megatron-1.7b", 24, 2304, 24}, GptShape{"megatron-3.6b", 30, 3072, 32},
        GptShape{"megatron-7.5b", 36, 4096, 32}, GptShape{"megatron-18b", 40, 6144, 48},
        GptShape{"megatron-22b", 48, 6144, 64}, GptShape{"megatron-39b", 48, 8192, 64},
        GptShape{"megatron-76b", 60, 10240, 80}, GptShape{"megatron-145b", 80, 12288, 96},
        GptShape{"megatron-310b", 96, 16384, 128}, GptShape{"megatron-530b", 105, 20480, 128},
        GptShape{"megatron-1t", 128, 25600, 160}})
    models.push_back(gpt(shape, 51200, 2048));
}

void append_llama(std::vector<Model>& models) {
  // Touvron et al. 2023 (arXiv 2307.09288), appendix A.2, and the released configurations.
  for (const LlamaShape& shape : {LlamaShape{"llama2-7b", 32, 4096, 32, 32, 11008},
                                  LlamaShape{"llama2-13b", 40, 5120, 40, 40, 13824},
                                  LlamaShape{"llama2-70b", 80, 8192, 64, 8, 28672}})
    models.push_back(llama(shape, 32000, 4096));
  // Llama Team 2024 (arXiv 2407.21783), table 3; 128,256 rows in the released checkpoints.
  // Pre-training used sequences of 8,192; longer ones came in a later phase (§3.4).
  for (const LlamaShape& shape : {LlamaShape{"llama3-8b", 32, 4096, 32, 8, 14336},
                                  LlamaShape{"llama3-70b", 80, 8192, 64, 8, 28672},
                                  LlamaShape{"llama3-405b", 126, 16384, 128, 8, 53248}})
    models.push_back(llama(shape, 128256, 8192));
}

void append_others(std::vector<Model>& models) {
  // Jiang et al. 2023 (arXiv 2310.06825); the released version 0.3, which has no sliding window.
  models.push_back(llama({"mistral-7b", 32, 4096, 32, 8, 14336}, 32768, 32768));
  // Qwen2.5 technical report (arXiv 2412.15115), table 1, and the released configurations.
  models.push_back(qwen2({"qwen2.5-7b", 28, 3584, 28, 4, 18944}));
  models.push_back(qwen2({"qwen2.5-72b", 80, 8192, 64, 8, 29568}));
  // Parmar et al. 2024 (arXiv 2402.16819), table 1; NVIDIA 2024 (arXiv 2406.11704), table 1.
  models.push_back(nemotron4({"nemotron4-15b", 32, 6144, 48, 8, 24576}));
  models.push_back(nemotron4({"nemotron4-340b", 96, 18432, 96, 8, 73728}));
}

/// A Llama whose feed-forward blocks are experts.
Model mixture(const LlamaShape& shape, int vocab, int max_seq_len, const Experts& experts) {
  Model model = llama(shape, vocab, max_seq_len);
  model.experts = experts;
  return model;
}

Model qwen3_mixture(const LlamaShape& shape, int expert_ffn) {
  // Norms of queries and keys (2 · 128 parameters a layer) are left out.
  Model model = mixture(shape, 151936, 32768, {.count = 128, .active = 8, .ffn = expert_ffn});
  model.head_dim = 128;
  return model;
}

/// DeepSeek's latent attention: 128 heads of 128, 64 of them rotated besides, latents of 512 and
/// 1,536.
Model deepseek(const LlamaShape& shape, int vocab, const Experts& experts) {
  Model model = mixture(shape, vocab, 4096, experts);
  model.head_dim = 128;
  model.latent = {.kv_rank = 512, .query_rank = 1536, .rope_dim = 64, .value_dim = 128};
  return model;
}

void append_mixtures(std::vector<Model>& models) {
  // Jiang et al. 2024 (arXiv 2401.04088), table 1, and the released configurations.
  models.push_back(
      mixture({"mixtral-8x7b", 32, 4096, 32, 8, 14336}, 32000, 32768, {.count = 8, .active = 2}));
  models.push_back(
      mixture({"mixtral-8x22b", 56, 6144, 48, 8, 16384}, 32768, 65536, {.count = 8, .active = 2}));
  // xAI 2024, model.py of the open release: gated GeLU, which is counted as SwiGLU.
  models.push_back(
      mixture({"grok-1", 64, 6144, 48, 8, 32768}, 131072, 8192, {.count = 8, .active = 2}));
  models.back().tied_embeddings = true;
  // DeepSeek-AI 2024 (arXiv 2405.04434), §3.1.2, and (arXiv 2412.19437), §4.2; both were trained
  // on sequences of 4,096.
  models.push_back(deepseek(
      {"deepseek-v2", 60, 5120, 128, 128, 12288}, 102400,
      {.count = 160, .active = 6, .ffn = 1536, .shared_ffn = 2 * 1536, .leading_dense = 1}));
  models.push_back(
      deepseek({"deepseek-v3", 61, 7168, 128, 128, 18432}, 129280,
               {.count = 256, .active = 8, .ffn = 2048, .shared_ffn = 2048, .leading_dense = 3}));
  models.back().mtp_layers = 1;
  // Qwen3 technical report (arXiv 2505.09388), table 2, and the released configurations.
  models.push_back(qwen3_mixture({"qwen3-30b-a3b", 48, 2048, 32, 4, 6144}, 768));
  models.push_back(qwen3_mixture({"qwen3-235b-a22b", 94, 4096, 64, 4, 12288}, 1536));
}

}  // namespace

const std::vector<Model>& model_catalogue() {
  static const std::vector<Model> catalogue = [] {
    std::vector<Model> models;
    append_gpt(models);
    append_megatron(models);
    append_llama(models);
    append_others(models);
    append_mixtures(models);
    return models;
  }();
  return catalogue;
}

const Model* find_model(const std::string& name) {
  for (const Model& model : model_catalogue())
    if (model.name == name) return &model;
  return nullptr;
}

}  // namespace rehearse
