#include "plan/hugging_face.h"

#include <limits>
#include <vector>

#include "plan/edit_distance.h"
#include "plan/json_document.h"
#include "plan/noun_tables.h"
#include "plan/table.h"

namespace rehearse {
namespace {

/// Looks keys up in the one object of a config.json and reports what is wrong with them.
class ConfigObject {
 public:
  ConfigObject(const JsonValue& object, Reading& reading) : object_(object), reading_(reading) {}

  /// The value, or nullptr where the key is missing or null: both mean the default.
  const JsonValue* find(const char* key) const {
    const JsonValue* value = object_.find(key);
    return value != nullptr && value->kind != JsonKind::Null ? value : nullptr;
  }

  /// A size the shape cannot do without.
  int size(const char* key, double most) {
    const JsonValue* value = find(key);
    if (value == nullptr) {
      problem(nullptr, key, "this size is missing", "config.json files of this model_type have it");
      return 1;
    }
    return read_size(*value, key, most, 1);
  }
  int size(const char* key, double most, int absent) {
    const JsonValue* value = find(key);
    return value != nullptr ? read_size(*value, key, most, absent) : absent;
  }

  bool flag(const char* key, bool absent) {
    const JsonValue* value = find(key);
    bool flag = absent;
    if (value == nullptr) return flag;
    const Reading::Inside inside(reading_, key);
    read_boolean(*value, reading_, flag);
    return flag;
  }

  std::string text(const char* key, const char* absent) {
    const JsonValue* value = find(key);
    std::string text = absent;
    if (value == nullptr) return text;
    const Reading::Inside inside(reading_, key);
    read_text(*value, reading_, text);
    return text;
  }

  /// A problem at a value, or at the object where the value is missing.
  void problem(const JsonValue* value, const char* key, std::string message,
               std::string hint = {}) {
    const Reading::Inside inside(reading_, key);
    reading_.problem((value != nullptr ? *value : object_).offset, std::move(message),
                     std::move(hint));
  }
  void problem(const char* key, std::string message, std::string hint = {}) {
    problem(object_.find(key), key, std::move(message), std::move(hint));
  }

 private:
  int read_size(const JsonValue& value, const char* key, double most, int absent) {
    const Reading::Inside inside(reading_, key);
    std::int64_t number = absent;
    read_integer(value, reading_, {1, most}, number);
    return static_cast<int>(number);
  }

  const JsonValue& object_;
  Reading& reading_;
};

/// Heads of attention from the keys that most architectures share.
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

const std::vector<std::string>& gelu_names() {
  static const std::vector<std::string> names{"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"};
  return names;
}

/// Llama and its descendants: RMSNorm, SwiGLU, rotary positions.
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
  if (window < model.max_seq_len)
    config.problem("sliding_window",
                   "attention in a sliding window of " + std::to_string(window) +
                       " tokens is not modelled here",
                   "set it to null to count attention over the whole sequence");
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
    {"llama", read_llama}, {"mistral", read_mistral},   {"qwen2", read_qwen2},
    {"gpt2", read_gpt2},   {"gpt_neox", read_gpt_neox}, {"nemotron", read_nemotron}};

/// Keys that say how many experts a layer has.
void refuse_experts(ConfigObject& config) {
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"})
    if (const JsonValue* value = config.find(key);
        value != nullptr && value->is_number() && value->number > 1)
      config.problem(key, "mixtures of experts are not supported yet");
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
    refuse_experts(config);
    Model model = architecture.read(config);
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
