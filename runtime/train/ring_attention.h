#pragma once
#include "runtime/train/attention_state.h"

namespace rehearse {

/// The ways that messages of a ring of context ranks take.
std::vector<MessageLane> ring_lanes(int ranks);

/// Attention of context ranks that each hold a part of every sequence. Keys and values go round the
/// ring (Liu et al. 2023, arXiv 2310.01889); each rank attends with its queries to the block at
/// hand and joins what it gets by the log-sum-exps. In the backward they go round again, the other
/// way, beginning with the block that the forward ended with, and the gradients that gather on them
/// follow one step behind: after cp − 1 hops each block's are at home. The steps, the bytes and
/// what is left out are those of kernels/context_attention.cpp.
class RingAttention {
 public:
  RingAttention(const RankContext& rank, const HeadCounts& counts);
  /// Reads state.query_key_value, writes the rest.
  void forward(AttentionState& state) const;
  /// Writes all of `d_fused`, the gradient of state.query_key_value.
  void backward(const AttentionState& state, const Tensor& d_out, const Tensor& d_fused) const;

 private:
  /// A block on its way out, and the one that comes in its place.
  struct Hop {
    Tensor out, in;
    Transfer send, receive;
  };
  /// What is left of a block under the causal mask.
  struct Part {
    const PackedSequences* sequences = nullptr;  ///< null: nothing
    bool causal = false;
  };
  Part part_of(int owner) const;
  Hop start_hop(const Tensor& block, int to, int from, int tag) const;
  Tensor finish_hop(Hop& hop) const;
  Tensor block_like() const;
  /// What queries got from some of the blocks.
  struct Result {
    Tensor out, log_sum_exp;
  };
  void attend(const Part& part, const AttentionState& state, const Result& to) const;
  /// In fp32 until the last block has come.
  Result joined(const Result& a, const Result& b, bool is_last) const;
  /// The gradients that a block gives to the queries and gets itself.
  struct Slopes {
    TensorView d_query;
    const Tensor& d_block;
  };
  void attend_backward(const Part& part, const AttentionState& state, const Tensor& block,
                       const Tensor& d_out, const Slopes& slopes) const;
  /// What a step leaves of a block's gradients: `part`, its own share, and what arrives. At home
  /// the sum is written there instead.
  Tensor block_gradient(int step, bool works, Hop& arriving, const Tensor& part,
                        const TensorView& home) const;

  const RankContext& rank_;
  HeadCounts counts_;
  int blocks_ = 0;           ///< that leave this rank something to do
  PackedSequences own_;      ///< whole sequences' parts, queries and keys alike
  PackedSequences earlier_;  ///< two pieces: all queries, the first keys
  PackedSequences later_;    ///< two pieces: the last queries, all keys
};

}  // namespace rehearse
