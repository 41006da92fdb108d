#pragma once
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "runtime/train/decoder_layer.h"
#include "runtime/train/model_ends.h"

namespace rehearse {

/// Token ids and labels of this context rank's rows of a micro-batch, int32.
struct MicroBatch {
  Tensor tokens, targets;
};

/// A chunk of the model on one rank: its forward and backward for one micro-batch at a time, with
/// several under way.
class ModelChunk {
 public:
  /// The units [first, end) of the store.
  ModelChunk(const RankContext& rank, const SequenceTables& tables, std::int32_t first_unit,
             std::int32_t end_unit);

  /// Called before the forward of a unit, and when its gradients of a micro-batch are complete.
  struct Hooks {
    std::function<void(std::int32_t unit)> before_forward, gradients_done;
    std::function<void(std::int32_t unit)> at_work;  ///< for records: whose operators follow
  };
  void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  /// `input`: the activations of the piece before; not given where the chunk begins the model.
  /// Returns what the next piece needs; nothing where the chunk ends the model.
  Tensor forward(int micro_batch, const Tensor& input, const MicroBatch& data);
  /// `d_output` from the next piece, not given where the chunk ends the model. With `defers`, the
  /// gradients of matrix products' weights and of the embedding wait for `weight_gradients`.
  Tensor backward(int micro_batch, const Tensor& d_output, const Tensor& loss_scale, bool defers);
  void weight_gradients(int micro_batch);

  /// Losses of the tokens of the micro-batches since it was last asked, as [tokens] tensors.
  std::vector<Tensor> take_losses() { return std::exchange(losses_, {}); }
  bool begins_model() const { return embedding_.has_value(); }
  bool ends_model() const { return head_.has_value(); }

 private:
  struct State {
    MicroBatch data;
    std::vector<LayerState> layers;
    HeadState head;
    WeightWork work;
    Tensor d_embedding;  ///< until the tables' gradients are made
  };
  void add_to_tables(State& state);
  void done(std::int32_t unit) const {
    if (hooks_.gradients_done) hooks_.gradients_done(unit);
  }
  void begin(std::int32_t unit) const {
    if (hooks_.at_work) hooks_.at_work(unit);
  }
  void before_forward(std::int32_t unit) const {
    if (hooks_.before_forward) hooks_.before_forward(unit);
    begin(unit);
  }

  const RankContext& rank_;
  std::int32_t first_unit_, end_unit_;
  std::optional<EmbeddingBlock> embedding_;
  std::vector<DecoderLayer> layers_;
  std::vector<std::int32_t> layer_units_;
  std::optional<HeadBlock> head_;
  std::map<int, State> states_;  ///< by micro-batch
  std::vector<Tensor> losses_;
  Hooks hooks_;
};

}  // namespace rehearse
