#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cost_model.h"
#include "kernels/layer.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// One operator or tensor collective of a chunk, priced.
struct ChunkItem {
  SegmentItem item;  ///< of a collective: its time in a tensor group that is alone on its node
  bool is_collective = false;
  CollectiveKind collective = CollectiveKind::AllReduce;
  CommGroup group = CommGroup::Tensor;
  bool beside_next = false;  ///< a collective that the next item does not need
  bool is_product = false;   ///< a matrix product
  double hidden_s = 0;       ///< of a collective: taken from its time, since the next item hides it
  double late_s = 0;         ///< of a collective: in its time, waiting for the latest rank
  double deviation = 0;      ///< of an operator's time from one execution to the next, relative
  bool weight_gradient = false;  ///< moves to the WeightGradient action of a split backward
  std::int32_t bucket = 0;       ///< gradient bucket its unit (layer, embedding, head) is in
};

/// FLOPs of operators, and their seconds by the evidence behind the price.
struct PricedTotals {
  double flops = 0;
  std::array<double, kCostSourceCount> seconds_by_source{};  ///< by CostSource
  void add(const PricedTotals& other, double times);
};

/// What one chunk of the model does for one micro-batch, on one tensor rank.
struct ChunkProgram {
  std::vector<ChunkItem> forward, backward;
  /// Parameters of each gradient bucket, in the order in which the backward completes them.
  std::vector<double> bucket_parameters;
  std::vector<double> bucket_expert_parameters;  ///< of these, the routed experts'
  std::vector<double> bucket_fp8_parameters;     ///< of these, those of fp8 products
  PricedTotals totals;                           ///< of one forward and one backward
  double parameters() const;
  double expert_parameters() const;
};

/// Which piece of the model a chunk is.
struct ChunkExtent {
  std::int32_t first_layer = 0, layer_count = 0;
  bool has_embedding = false, has_head = false;
  bool head_has_table = true;  ///< false: tied to an embedding in the same chunk
  /// Modules that predict further tokens look them up in a copy of the embedding's table.
  bool mtp_has_table = false;
};

/// Names in the timeline, each once.
class Labels {
 public:
  explicit Labels(std::vector<std::string>& names) : names_(names) {}
  std::int32_t of(const std::string& name);

 private:
  std::vector<std::string>& names_;
};

/// Time of a layer's collective on an otherwise idle network, as far as its items count it.
using CollectiveSeconds = std::function<double(const LayerItem& collective)>;

/// Lays out the operators of pieces of a model and prices each shape once.
class StageProgrammer {
 public:
  /// `heaviest_load`: attention is priced with that many times more pairs too, for micro-batches
  /// whose documents are longer (AttentionLoad); 0: all are alike.
  StageProgrammer(const LayerShape& shape, const CostModel& costs,
                  CollectiveSeconds collective_seconds, Labels& labels, double heaviest_load = 0);

  /// `bucket_parameters`: a gradient bucket is closed once it holds as many.
  ChunkProgram chunk(const ChunkExtent& extent, double bucket_parameters) const;
  /// Operators that stand alone (the optimizer), priced; their totals are added to `totals`.
  SegmentItem price(const Operator& op, PricedTotals& totals) const;

 private:
  struct Priced {
    std::vector<ChunkItem> items;
    PricedTotals totals;
  };
  /// A kind of layer: all of one shape are priced once.
  struct Variant {
    Recompute recompute;
    Precision precision;
    int experts;
    double expert_load;
    Priced forward, backward;
    double parameters, expert_parameters, fp8_parameters;
  };
  Priced price_all(const std::vector<LayerItem>& items, const char* suffix) const;
  const Variant& variant(const LayerShape& shape) const;
  /// The `module`-th of those that predict further tokens, priced when first asked for.
  const Variant& mtp_module(int module) const;

  const CostModel& costs_;
  CollectiveSeconds collective_seconds_;
  Labels& labels_;
  double heaviest_load_;
  LayerShape shape_;
  mutable std::deque<Variant> variants_;  ///< priced when first asked for; references stay valid
  mutable std::deque<Variant> mtp_modules_;
  Priced embedding_forward_, embedding_backward_;
  Priced head_forward_, head_backward_;
};

}  // namespace rehearse
