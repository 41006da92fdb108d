#include "plan/hugging_face.h"

#include <limits>
#include <vector>

#include "plan/edit_distance.h"
#include "plan/hugging_face_config.h"
#include "plan/json_document.h"
#include "plan/noun_tables.h"
#include "plan/table.h"

namespace rehearse {
void read_heads(ConfigObject& config, Model& model, const char* heads_key) {
  model.heads = config.size(heads_key, kMostHeads);
  model.kv_heads = config.size("num_key_value_heads", kMostHeads, model.heads);
  if (model.heads % model.kv_heads != 0)
    config.problem("num_key_value_heads", std::to_string(model.heads) + " heads cannot share " +
                                              std::to_string(model.kv_heads) +
                                              " key/value heads evenly");
  if (config.find("head_dim") == nullptr && model.hidden % model.heads != 0)
    config.problem(heads_key,
                   std::to_string(model.heads) + " heads do not divide the width of " +
                       std::to_string(model.hidden),
                   "head_dim says how large a head is");
  model.head_dim = config.size("head_dim", kMostHeads, std::max(1, model.hidden / model.heads));
}

void expect_activation(ConfigObject& config, const char* key, const char* absent,
                       const std::vector<std::string>& known) {
  const std::string name = config.text(key, absent);
  for (const std::string& one : known)
    if (name == one) return;
  config.problem(key, "the activation function " + json_quoted(name) + " is not modelled here",
                 "this model_type is read with " + json_quoted(known.front()));
}

Model read_llama_like(ConfigObject& config) {
  Model model;
  model.layers = config.size("num_hidden_layers", kMostLayers);
  model.hidden = config.size("hidden_size", kMostHidden);
  model.ffn = config.size("intermediate_size", kMostFfn);
  model.vocab = config.size("vocab_size", kMostVocab);
  model.max_seq_len = config.size("max_position_embeddings", kMostTokensPerSequence);
  read_heads(config, model, "num_attention_heads");
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.tied_embeddings = config.flag("tie_word_embeddings", false);
  model.linear_bias = false;
  return model;
}

namespace {

const std::vector<std::string>& gelu_names() {
  static const std::vector<std::string> names{"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"};
  return names;
}

Model read_llama(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  const bool attention = config.flag("attention_bias", false);
  const bool mlp = config.flag("mlp_bias", false);
  model.linear_bias = attention && mlp;
  if (attention != mlp)
    config.problem(attention ? "attention_bias" : "mlp_bias",
                   "biases on only one of attention and feed-forward are not modelled here",
                   "set attention_bias and mlp_bias alike");
  return model;
}

Model read_mistral(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  const int window =
      config.size("sliding_window", kMostTokensPerSequence, std::numeric_limits<int>::max());
  if (window < model.max_seq_len) model.window = window;
  return model;
}

Model read_qwen2(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "silu", {"silu", "swish"});
  model.qkv_bias = true;
  if (config.flag("use_sliding_window", false))
    config.problem("use_sliding_window", "attention in a sliding window is not modelled here",
                   "set it to false to count attention over the whole sequence");
  return model;
}

Model read_nemotron(ConfigObject& config) {
  Model model = read_llama_like(config);
  expect_activation(config, "hidden_act", "relu2", {"relu2"});
  model.activation = Activation::SquaredRelu;
  model.norm = Norm::LayerNorm;
  const bool attention = config.flag("attention_bias", false);
  model.linear_bias = attention && config.flag("mlp_bias", false);
  if (attention != config.flag("mlp_bias", false))
    config.problem("attention_bias",
                   "biases on only one of attention and feed-forward are not modelled here",
                   "set attention_bias and mlp_bias alike");
  return model;
}

Model read_gpt2(ConfigObject& config) {
  Model model;
  model.layers = config.size("n_layer", kMostLayers);
  model.hidden = config.size("n_embd", kMostHidden);
  model.ffn = config.size("n_inner", kMostFfn, 4 * model.hidden);
  model.vocab = config.size("vocab_size", kMostVocab);
  model.max_seq_len = config.size("n_positions", kMostTokensPerSequence);
  read_heads(config, model, "n_head");
  expect_activation(config, "activation_function", "gelu_new", gelu_names());
  model.tied_embeddings = config.flag("tie_word_embeddings", true);
  return model;
}

Model read_gpt_neox(ConfigObject& config) {
  Model model;
  model.layers = config.size("num_hidden_layers", kMostLayers);
  model.hidden = config.size("hidden_size", kMostHidden);
  model.ffn = config.size("intermediate_size", kMostFfn);
  model.vocab = config.size("vocab_size", kMostVocab);
  model.max_seq_len = config.size("max_position_embeddings", kMostTokensPerSequence);
  read_heads(config, model, "num_attention_heads");
  expect_activation(config, "hidden_act", "gelu", gelu_names());
  model.positions = Positions::Rotary;
  model.tied_embeddings = config.flag("tie_word_embeddings", false);
  if (config.flag("use_parallel_residual", true))
    config.problem("use_parallel_residual",
                   "attention and feed-forward side by side are not modelled here",
                   "set it to false to count them one after the other");
  if (!config.flag("attention_bias", true))
    config.problem("attention_bias",
                   "biases on only one of attention and feed-forward are not modelled here");
  return model;
}

struct Architecture {
  const char* model_type;
  Model (*read)(ConfigObject&);
};

constexpr Architecture kArchitectures[] = {
    {"llama", read_llama},          {"mistral", read_mistral},
    {"qwen2", read_qwen2},          {"gpt2", read_gpt2},
    {"gpt_neox", read_gpt_neox},    {"nemotron", read_nemotron},
    {"mixtral", read_mixtral},      {"grok-1", read_grok},
    {"deepseek_v2", read_deepseek}, {"deepseek_v3", read_deepseek},
    {"qwen3_moe", read_qwen3_moe}};

/// Experts in an architecture that is read as a dense one.
void refuse_experts(ConfigObject& config, const Model& model) {
  if (model.experts.count > 0) return;
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"})
    if (const JsonValue* value = config.find(key);
        value != nullptr && value->is_number() && value->number > 1)
      config.problem(key, "experts are not expected in this architecture",
                     "mixtures are read from mixtral, grok-1, deepseek and qwen3_moe");
}

/// The last part of the hub's name ("meta-llama/Llama-2-7b-hf"), else the architecture's.
std::string model_name(ConfigObject& config, const std::string& model_type) {
  const std::string path = config.text("_name_or_path", "");
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return name.empty() ? model_type : name;
}

std::optional<Model> read_config(const JsonDocument& document, Problems& problems) {
  const std::size_t before = problems.count();
  if (!document.parsed) return std::nullopt;
  Reading reading(document.source, problems);
  if (!document.root.is_object()) {
    report_kind(document.root, reading, "an object", "a config.json of the Hugging Face hub");
    return std::nullopt;
  }
  ConfigObject config(document.root, reading);
  const std::string type = config.text("model_type", "");
  std::vector<std::string> known;
  for (const Architecture& architecture : kArchitectures) {
    known.emplace_back(architecture.model_type);
    if (type != architecture.model_type) continue;
    Model model = architecture.read(config);
    refuse_experts(config, model);
    model.name = model_name(config, type);
    if (problems.count() > before) return std::nullopt;
    return model;
  }
  if (type.empty()) {
    if (problems.count() == before)
      config.problem("model_type", "this names the architecture, and is missing",
                     name_hint("", known));
  } else {
    config.problem("model_type", "the architecture " + json_quoted(type) + " is not known here",
                   name_hint(type, known));
  }
  return std::nullopt;
}

}  // namespace

std::optional<Model> read_hugging_face(std::string_view text, const std::string& file,
                                       Problems& problems) {
  const std::size_t before = problems.count();
  const JsonDocument document = parse_json(text, file, problems);
  std::optional<Model> model = read_config(document, problems);
  if (problems.count() > before) model.reset();
  return model;
}

std::optional<Model> read_hugging_face_file(const std::string& path, Problems& problems) {
  const std::size_t before = problems.count();
  const JsonDocument document = parse_json_file(path, problems);
  std::optional<Model> model = read_config(document, problems);
  if (problems.count() > before) model.reset();
  return model;
}

}  // namespace rehearse
