#pragma once
#include <cstdint>
#include <vector>

#include "kernels/layer.h"

namespace rehearse {

/// Sizes of one tensor rank's part of a layer, in elements.
struct LayerWidths {
  explicit LayerWidths(const LayerShape& shape);
  std::int64_t tokens;        ///< T = b·s/c, what the matrix products see
  std::int64_t split_tokens;  ///< T/columns with sequence parallelism, else T: norms, adds, dropout
  std::int64_t hidden;        ///< of the residual stream on this rank: h/rows
  std::int64_t rows, columns;    ///< of the grid of tensor ranks: 1 and t, unless it has more rows
  std::int64_t heads, kv_heads;  ///< of this rank
  std::int64_t query, key, qkv;  ///< heads·d, kv_heads·d, query + 2·key
  std::int64_t ffn;              ///< of this rank
  std::int64_t ffn_up;           ///< columns of the first product: 2·ffn for SwiGLU
  std::int64_t vocab;            ///< rows of the table on this rank
  double element_bytes;          ///< of an activation: fp8 plans keep bf16
  double gradient_bytes;         ///< of an accumulated gradient
  Precision activation_precision;  ///< of everything but fp8 products
  bool dropout, fp8;
  bool fp8_output;   ///< the projection after attention too
  double fp8_bytes;  ///< of an fp8 element with its part of a scale
  /// Of what linear layers keep for their weight gradients: fp8, or 16 bits where those are.
  double kept_bytes;
  bool fp8_gathers;  ///< sequence-parallel gathers move fp8
};

/// Collects the items of a piece of the model.
class ItemList {
 public:
  void add(const Operator& op);
  /// `bytes` as LayerItem counts them.
  void collective(CollectiveKind kind, OperatorName name, Pass pass, double bytes,
                  bool beside_next = false);
  /// Among the ranks of a row (column) of the grid of tensor ranks; nothing where there is one.
  void row_collective(const LayerWidths& at, CollectiveKind kind, OperatorName name, Pass pass,
                      double bytes, bool beside_next = false);
  void column_collective(const LayerWidths& at, CollectiveKind kind, OperatorName name, Pass pass,
                         double bytes, bool beside_next = false);
  /// The collective just added is one of the expert-parallel ranks.
  void to_experts();
  void context_collective(CollectiveKind kind, Pass pass, double bytes, bool beside_next = false);
  void append(const std::vector<LayerItem>& items, bool recomputed);
  void append_as_is(const std::vector<LayerItem>& items);
  std::vector<LayerItem> take() { return std::move(items_); }

 private:
  std::vector<LayerItem> items_;
};

/// The attention core (scores, softmax, dropout, weighted values): one flash kernel, or the
/// products and memory passes of the plain form.
void attention_core_forward(const LayerShape& shape, ItemList& items);
void attention_core_backward(const LayerShape& shape, ItemList& items);
/// Likewise where context ranks share a sequence, with what they send each other
/// (context_attention.cpp).
void context_core_forward(const LayerShape& shape, ItemList& items);
void context_core_backward(const LayerShape& shape, ItemList& items);
/// Beside the gradients of the core: buffers of a ring's keys and values and of their gradients.
double context_workspace_bytes(const LayerShape& shape);

/// The operator with as many pairs as borders of documents and a window leave.
inline Operator with_pairs(Operator op, double pair_share) {
  op.pair_share *= pair_share;
  op.flops *= pair_share;
  return op;
}

/// A linear layer's products. A column-parallel layer gathers its input over the sequence first
/// and its input gradient is summed over tensor ranks; a row-parallel one the other way round.
/// Sizes are those of the rank's block of weights.
struct Linear {
  OperatorName name;
  std::int64_t in, out;  ///< of this rank
  bool column_parallel;
  bool bias;
  bool fp8;                     ///< with casts around the products
  bool repeated_input = false;  ///< its input is not kept, but made again in 16 bits
};
void linear_forward(const LayerShape& shape, const Linear& linear, ItemList& items);
void linear_backward(const LayerShape& shape, const Linear& linear, ItemList& items);

Operator norm_forward(const LayerShape& shape, OperatorName name);
Operator norm_backward(const LayerShape& shape, OperatorName name);
/// The same, with the sums over the rows of a grid before them.
void add_norm_forward(const LayerShape& shape, OperatorName name, ItemList& items);
void add_norm_backward(const LayerShape& shape, OperatorName name, ItemList& items);

/// Bytes of an fp8 element with its part of a scale.
double fp8_element_bytes(Fp8Scaling scaling);
/// Traffic of casting a tensor of so many elements from 16 bits to fp8, as it is and, where
/// something reads it so, transposed.
double fp8_cast_bytes(Fp8Scaling scaling, double elements, bool transposed);
/// The cast of an operand of a forward product, or of one of the backward's.
void add_cast(const LayerShape& shape, double elements, Pass pass, ItemList& items);
/// The transposed copy that an fp8 weight gradient reads, of what waited in fp8 (or,
/// `from_16_bits`, was made again).
void add_transposing_cast(const LayerShape& shape, double elements, bool from_16_bits,
                          ItemList& items);
/// Whether a forward's cast leaves the transposed copy to the backward.
bool transposes_later(const LayerShape& shape);
/// A product as the plan's recipe scales it.
Operator scaled_product(const LayerShape& shape, Operator op);

/// Whether a layer of this shape keeps an activation in fewer bits where the plan says so.
bool is_stored(const LayerShape& shape, StoredAs store);
/// Bytes of an element of a saved activation that would take `computed_bytes` else.
double stored_bytes(const LayerShape& shape, StoredAs store, double computed_bytes);
/// Into fewer bits after the forward, back before the backward; nothing where it is kept as it is.
void add_store(const LayerShape& shape, StoredAs store, double elements, Pass pass,
               ItemList& items);

/// Tokens of the busiest expert rank of a layer with experts, as a multiple of the mean.
double load_of_layer(const LayerShape& shape, int layer);

/// The shape of one tensor rank with its own share of the tokens, for what is whole on each.
LayerShape own_share(const LayerShape& shape);

/// Weight gradients, and the gathers only they need, after everything else; order kept.
std::vector<LayerItem> with_weight_gradients_last(std::vector<LayerItem> items);

}  // namespace rehearse
