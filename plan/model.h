#pragma once
#include <cstdint>
#include <string>

namespace rehearse {

enum class Activation : std::uint8_t { Gelu, Swiglu, SquaredRelu };
enum class Norm : std::uint8_t { LayerNorm, RmsNorm };
enum class Positions : std::uint8_t { Learned, Rotary };

/// Feed-forward blocks of which each token passes a few.
struct Experts {
  int count = 0;          ///< routed experts of a layer; 0: the model is dense
  int active = 1;         ///< routed experts that a token passes
  int ffn = 0;            ///< width of one expert; 0: the model's ffn
  int shared_ffn = 0;     ///< width of all shared experts together; 0: there are none
  int leading_dense = 0;  ///< first layers with a dense block of the model's ffn instead
  bool operator==(const Experts&) const = default;
};

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): queries, and keys with values, pass
/// a narrow layer. `Model::head_dim` is the part of a query or key head without rotation.
struct LatentAttention {
  int kv_rank = 0;     ///< width of the common latent of keys and values; 0: ordinary attention
  int query_rank = 0;  ///< width of the queries' latent; 0: queries come straight from hidden
  int rope_dim = 0;    ///< rotated part of each head, its key common to all heads
  int value_dim = 0;   ///< size of one value head
  bool operator==(const LatentAttention&) const = default;
};

/// A decoder-only transformer. Sizes are counts of elements; `vocab` is the published
/// vocabulary, padded by the plan (`padded_vocab`) so that tensor ranks share it evenly.
///
/// Invariants (checked where a model is read): all sizes ≥ 1; heads is a multiple of kv_heads.
struct Model {
  std::string name;
  int layers = 1;
  int hidden = 1;
  int heads = 1;
  int kv_heads = 1;  ///< = heads: multi-head; < heads: grouped; 1: multi-query
  int head_dim = 1;  ///< heads · head_dim need not equal hidden
  int ffn = 1;       ///< width inside the feed-forward block (of each half of SwiGLU)
  int vocab = 1;
  int max_seq_len = 2048;  ///< longest sequence it was made for; the default of a workload
  Activation activation = Activation::Gelu;
  Norm norm = Norm::LayerNorm;
  Positions positions = Positions::Learned;
  bool tied_embeddings = true;  ///< the head reuses the embedding's weights
  bool linear_bias = true;      ///< biases on the linear layers of attention and feed-forward
  int window = 0;               ///< tokens that attention looks back (sliding window); 0: all
  Experts experts;
  LatentAttention latent;
  /// Modules behind the last layer that predict one further token each (multi-token prediction,
  /// DeepSeek-V3, arXiv 2412.19437, §2.2): a layer like the last on the projected pair of the
  /// stream and the next token's embedding, with the model's own embedding and head.
  int mtp_layers = 0;
  bool qkv_bias = false;  ///< biases on QKV even where linear_bias is off (Qwen2)
};

/// Parameters by part; a part holds its norms and biases.
struct ParameterCount {
  std::int64_t embedding = 0;  ///< token table, and learned positions where the model has them
  std::int64_t attention = 0;  ///< of all layers: QKV and output projection with their biases
  std::int64_t mlp = 0;        ///< of all layers; with experts, all of them and the router
  std::int64_t norms = 0;      ///< of all layers, and the final one
  std::int64_t head = 0;       ///< 0 where tied
  std::int64_t mtp = 0;        ///< of modules that predict further tokens, without what they share
  std::int64_t total() const { return embedding + attention + mlp + norms + head + mtp; }
};

/// Trainable parameters with `vocab_size` rows in the table: the published vocabulary for
/// comparison with papers, the padded one for memory.
ParameterCount count_parameters(const Model& model, int vocab_size);
inline ParameterCount count_parameters(const Model& model) {
  return count_parameters(model, model.vocab);
}

/// Parameters of one transformer layer.
std::int64_t layer_parameters(const Model& model);

/// How attention over a causal mask is counted: the whole s×s square, as in papers since
/// Megatron-LM's, or the half that a causal kernel computes.
enum class AttentionCount : std::uint8_t { FullSquare, CausalHalf };

/// FLOPs of one training step (forward + backward = 3 × forward, no recomputation) on
/// `tokens` tokens in sequences of `seq_len`; a multiply-add is 2 FLOPs. Matrix products and
/// attention only. Source: Narayanan et al. 2021 (arXiv 2104.04473), appendix; for SwiGLU and
/// grouped heads the same count over the actual matrix shapes. Modules that predict further tokens
/// count.
double training_flops(const Model& model, double tokens, int seq_len, AttentionCount count);

/// FLOPs of repeating the forward of every layer once, which full recomputation adds to
/// `training_flops`; embedding, head and loss are not repeated.
double recomputation_flops(const Model& model, double tokens, int seq_len, AttentionCount count);

/// `vocab` rounded up to a multiple of `multiple · tp` (Megatron-LM pads to 128 · tp).
int padded_vocab(const Model& model, int tp, int multiple = 128);

}  // namespace rehearse
