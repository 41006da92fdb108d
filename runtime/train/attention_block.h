#pragma once
#include <vector>

#include "runtime/train/linear.h"

namespace rehearse {

/// Where the rows of a micro-batch are in their sequences; made once a run.
struct SequenceTables {
  explicit SequenceTables(const RankContext& rank);
  std::vector<std::int32_t> row_positions;  ///< of each row, in its sequence
  Tensor positions;                         ///< the same on the device
  Tensor offsets;                           ///< of sequences among the rows
  Tensor rope;                              ///< cosines and sines of each position
  /// Context ranks: the pieces that each rank holds of every sequence, as pieces of 1/(2·cp).
  std::vector<std::vector<int>> pieces;
};

/// Pieces, of 2·cp equal ones of a sequence, that a context rank holds. Balanced: rank r has r and
/// 2·cp − 1 − r, so that all ranks compute as many scores under a causal mask; else 2r and 2r + 1.
std::vector<int> context_pieces(int cp, int rank, bool balanced);

/// What attention keeps for its gradient.
struct AttentionState {
  Tensor query_key_value;  ///< fused; of context ranks the queries alone
  Tensor key_value;        ///< context ranks: of whole sequences, in order
  Tensor out;
  std::vector<Tensor> log_sum_exp;
};

/// Queries, keys and values from the normed input, their rotation, and causal attention.
///
/// Context ranks hold pieces of each sequence. Keys and values, of which grouped heads have few,
/// are gathered whole; each rank then attends from its pieces of the queries to all keys before
/// their end, and the gradients of keys and values are reduce-scattered back (Llama 3, Grattafiori
/// et al. 2024, arXiv 2407.21783, §3.3.2).
class AttentionBlock {
 public:
  AttentionBlock(const RankContext& rank, const SequenceTables& tables, ShardedLinear::Places qkv);
  void forward(const Tensor& x, AttentionState& state) const;
  /// Returns the gradient of the input.
  Tensor backward(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                  WeightWork& work) const;

 private:
  struct Piece {
    std::int64_t first_query = 0, queries = 0, first_key = 0, keys = 0;
    Tensor query_offsets, key_offsets;
  };
  void attend(AttentionState& state) const;
  void rotate(const Tensor& rows, std::int64_t heads, bool inverse) const;
  void exchange(const AttentionState& state, const Tensor& own) const;
  Tensor backward_whole(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                        WeightWork& work) const;
  Tensor backward_pieces(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                         WeightWork& work) const;
  std::vector<TensorView> rows_in_order(const Tensor& gathered) const;
  AttentionShape shape(const Tensor& queries, const Tensor& keys, std::int64_t most_queries,
                       std::int64_t most_keys) const;
  AttentionShape shape(const Piece& piece) const;

  const RankContext& rank_;
  const SequenceTables& tables_;
  std::int64_t heads_, kv_heads_, head_dim_;
  ShardedLinear fused_;              ///< one rank holds whole sequences
  ShardedLinear query_, key_value_;  ///< context ranks
  std::vector<Piece> pieces_;
};

}  // namespace rehearse
