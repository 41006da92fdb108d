#include "plan/hugging_face.h"

#include <fstream>

#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

// Sizes are those of the released checkpoints' own config.json files.

namespace {

const char* const kLlama = R"({
  "architectures": ["LlamaForCausalLM"],
  "_name_or_path": "meta-llama/Meta-Llama-3-8B",
  "attention_bias": false,
  "bos_token_id": 128000,
  "hidden_act": "silu",
  "hidden_size": 4096,
  "intermediate_size": 14336,
  "max_position_embeddings": 8192,
  "model_type": "llama",
  "num_attention_heads": 32,
  "num_hidden_layers": 32,
  "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05,
  "rope_scaling": null,
  "rope_theta": 500000.0,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "vocab_size": 128256
})";

const char* const kGpt2 = R"({
  "activation_function": "gelu_new",
  "model_type": "gpt2",
  "n_ctx": 1024, "n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024,
  "vocab_size": 50257
})";

const char* const kMistral = R"({
  "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
  "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
  "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": null,
  "tie_word_embeddings": false, "vocab_size": 32768
})";

const char* const kQwen2 = R"({
  "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
  "max_position_embeddings": 131072, "model_type": "qwen2", "num_attention_heads": 28,
  "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 131072,
  "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 152064
})";

const char* const kNeox = R"({
  "hidden_act": "gelu_fast", "hidden_size": 6144, "intermediate_size": 24576,
  "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 64,
  "num_hidden_layers": 44, "tie_word_embeddings": false, "use_parallel_residual": false,
  "vocab_size": 50432
})";

const char* const kMixtral = R"({
  "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
  "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
  "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "num_local_experts": 8, "sliding_window": null, "tie_word_embeddings": false,
  "vocab_size": 32000
})";

const char* const kDeepSeek = R"({
  "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
  "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1,
  "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
  "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64, "tie_word_embeddings": false, "topk_group": 4, "v_head_dim": 128,
  "vocab_size": 129280
})";

const char* const kQwen3 = R"({
  "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
  "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [],
  "model_type": "qwen3_moe", "moe_intermediate_size": 768, "num_attention_heads": 32,
  "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
  "num_key_value_heads": 4, "tie_word_embeddings": false, "use_sliding_window": false,
  "vocab_size": 151936
})";

Model read(const std::string& text) {
  Problems problems;
  const auto model = read_hugging_face(text, "config.json", problems);
  INFO(problems.text());
  REQUIRE(model.has_value());
  return *model;
}

/// The one problem of the text, as "line:column pointer: message".
std::string problem(const std::string& text) {
  Problems problems;
  CHECK_FALSE(read_hugging_face(text, "config.json", problems).has_value());
  std::string all;
  for (const Problem& one : problems.all()) {
    CHECK(one.file == "config.json");
    all += (all.empty() ? "" : " | ") + std::to_string(one.line) + ":" +
           std::to_string(one.column) + " " + one.pointer + ": " + one.message;
  }
  return all;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

bool same_shape(const Model& a, const Model& b) {
  return a.layers == b.layers && a.hidden == b.hidden && a.heads == b.heads &&
         a.kv_heads == b.kv_heads && a.head_dim == b.head_dim && a.ffn == b.ffn &&
         a.vocab == b.vocab && a.activation == b.activation && a.norm == b.norm &&
         a.positions == b.positions && a.tied_embeddings == b.tied_embeddings &&
         a.linear_bias == b.linear_bias && a.qkv_bias == b.qkv_bias && a.experts == b.experts &&
         a.latent == b.latent && a.mtp_layers == b.mtp_layers;
}

}  // namespace

TEST_CASE("released configurations are the catalogue's shapes") {
  CHECK(same_shape(read(kLlama), *find_model("llama3-8b")));
  CHECK(same_shape(read(kGpt2), *find_model("gpt2-xl")));
  CHECK(same_shape(read(kMistral), *find_model("mistral-7b")));
  CHECK(same_shape(read(kQwen2), *find_model("qwen2.5-7b")));
  CHECK(read(kLlama).name == "Meta-Llama-3-8B");
  CHECK(read(kLlama).max_seq_len == 8192);
  CHECK(read(kGpt2).name == "gpt2");
}

TEST_CASE("released mixtures are the catalogue's shapes") {
  CHECK(same_shape(read(kMixtral), *find_model("mixtral-8x7b")));
  CHECK(same_shape(read(kDeepSeek), *find_model("deepseek-v3")));
  CHECK(same_shape(read(kQwen3), *find_model("qwen3-30b-a3b")));
  const Model lite = read(replaced(replaced(kDeepSeek, "1536", "null"),
                                   "\"first_k_dense_replace\": 3", "\"first_k_dense_replace\": 0"));
  CHECK(lite.latent.query_rank == 0);
  CHECK(lite.experts.leading_dense == 0);
  CHECK(problem(replaced(kMixtral, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9"))
            .find("a token cannot pass 9 of 8 experts") != std::string::npos);
  CHECK(problem(replaced(kQwen3, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2"))
            .find("/decoder_sparse_step: ") != std::string::npos);
}

TEST_CASE("GPT-NeoX 20B has its published parameters") {
  // Black et al. 2022 (arXiv 2204.06745): 20,554,567,680 with 50,432 rows in both tables.
  CHECK(count_parameters(read(kNeox)).total() == 20554567680);
}

TEST_CASE("a given head size is taken, and heads may be wider than the model") {
  const Model model = read(replaced(kLlama, "\"hidden_act\"", "\"head_dim\": 256, \"hidden_act\""));
  CHECK(model.head_dim == 256);
  CHECK(model.heads * model.head_dim > model.hidden);
}

TEST_CASE("an unknown architecture is a problem at its name") {
  CHECK(problem("{\n  \"model_type\": \"mamba\"\n}") ==
        "2:17 /model_type: the architecture \"mamba\" is not known here");
  CHECK(problem("{}") == "1:1 /model_type: this names the architecture, and is missing");
  Problems problems;
  read_hugging_face("{\"model_type\": \"lama\"}", "config.json", problems);
  CHECK(problems.text().find("llama") != std::string::npos);
}

TEST_CASE("missing and wrong sizes are all told at once") {
  const std::string text = replaced(replaced(kMistral, "\"hidden_size\": 4096,", ""),
                                    "\"vocab_size\": 32768", "\"vocab_size\": \"many\"");
  const std::string told = problem(text);
  CHECK(told.find("/hidden_size: this size is missing") != std::string::npos);
  CHECK(told.find("/vocab_size: ") != std::string::npos);
  CHECK(problem(replaced(kGpt2, "1600", "-3")).find("/n_embd: ") != std::string::npos);
}

TEST_CASE("heads that do not fit the width or each other are problems") {
  CHECK(problem(replaced(kLlama, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5")) ==
        "13:26 /num_key_value_heads: 32 heads cannot share 5 key/value heads evenly");
  CHECK(problem(replaced(kGpt2, "\"n_head\": 25", "\"n_head\": 24")) ==
        "4:44 /n_head: 24 heads do not divide the width of 1600");
}

TEST_CASE("what would change the cost but is not modelled is a problem") {
  CHECK(problem(replaced(kQwen2, "\"use_sliding_window\": false", "\"use_sliding_window\": true"))
            .find("/use_sliding_window: ") != std::string::npos);
  CHECK(problem(replaced(kNeox, "\"use_parallel_residual\": false,", "\n"))
            .find("/use_parallel_residual: ") != std::string::npos);
  CHECK(problem(replaced(kLlama, "\"silu\"", "\"relu\"")) ==
        "6:17 /hidden_act: the activation function \"relu\" is not modelled here");
  CHECK(problem(replaced(kLlama, "\"attention_bias\": false", "\"attention_bias\": true"))
            .find("/attention_bias: ") != std::string::npos);
  CHECK(problem(replaced(kLlama, "\"vocab_size\"", "\"num_local_experts\": 8, \"vocab_size\""))
            .find("/num_local_experts: experts are not expected") != std::string::npos);
}

TEST_CASE("text that is no configuration is a problem, never a crash") {
  CHECK_FALSE(problem("").empty());
  CHECK_FALSE(problem("[1, 2]").empty());
  CHECK_FALSE(problem("{\"model_type\": 3}").empty());
  CHECK_FALSE(problem("{\"model_type\": \"llama\"").empty());
  Problems problems;
  CHECK_FALSE(read_hugging_face_file("/nowhere/config.json", problems).has_value());
  CHECK(problems.count() == 1);
}
