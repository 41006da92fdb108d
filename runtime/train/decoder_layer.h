#pragma once
#include "runtime/train/attention_block.h"
#include "runtime/train/norm_block.h"

namespace rehearse {

/// What a layer keeps of one micro-batch for its backward. With full recomputation: the input.
struct LayerState {
  Tensor input;
  Tensor normed1, projected_sum, normed2, up, activated;
  NormState norm1, norm2;
  AttentionState attention;
};

/// x → norm → attention → projection → +x → norm → up → activation → down → + → y: the operators
/// and collectives of kernels/layer.cpp.
class DecoderLayer {
 public:
  DecoderLayer(const RankContext& rank, const SequenceTables& tables, std::int32_t unit,
               bool recomputes);
  Tensor forward(const Tensor& input, LayerState& state) const;
  /// Returns the gradient of the input and gives back what was kept.
  Tensor backward(LayerState& state, const Tensor& d_output, WeightWork& work) const;

 private:
  Tensor compute(LayerState& state) const;

  const RankContext& rank_;
  bool recomputes_;
  NormBlock norm1_;
  AttentionBlock attention_;
  ShardedLinear projection_;
  NormBlock norm2_;
  ShardedLinear up_, down_;
};

}  // namespace rehearse
