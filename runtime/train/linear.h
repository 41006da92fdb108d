#pragma once
#include <vector>

#include "runtime/train/rank_context.h"

namespace rehearse {

/// Weight gradients that are left to do, with all they need.
class WeightWork {
 public:
  struct Product {
    Tensor x;  ///< rows of the whole sequence, or with `gathers_x` of this rank's share
    bool gathers_x = false;
    Tensor d_out;        ///< of the whole sequence
    Tensor d_bias_rows;  ///< what the bias's gradient is the sum of
    std::int32_t weight = 0, bias = -1;
    std::int64_t first_row = 0, rows = 0;  ///< of the parameter
    std::int32_t unit = 0;
  };
  /// Deferred work waits for `run_all`: the second half of a split backward.
  explicit WeightWork(bool deferred = false) : deferred_(deferred) {}
  bool deferred() const { return deferred_; }
  void add(const RankContext& rank, Product product);
  /// Does what was deferred of one unit, in the order added.
  void run(const RankContext& rank, std::int32_t unit);

 private:
  bool deferred_;
  std::vector<Product> products_;
};

/// How tensor ranks share a product's weights.
enum class Cut : std::uint8_t { Columns, Rows, None };

/// y = x·Wᵀ + b under tensor parallelism (Shoeybi et al. 2019, arXiv 1909.08053) and sequence
/// parallelism (Korthikanti et al. 2022, arXiv 2205.05198): the collectives are those that
/// kernels/linear.cpp lists. A product cut by rows adds its bias on the first tensor rank, before
/// the sum.
class ShardedLinear {
 public:
  struct Places {
    std::int32_t weight = 0, bias = -1, unit = 0;
    std::int64_t first_row = 0, rows = -1;  ///< of the weights; −1: all
  };
  ShardedLinear(const RankContext& rank, Places places, Cut cut);

  Tensor forward(const Tensor& x) const;
  /// Returns the gradient of x; that of the weights is done or left in `work`.
  Tensor backward(const Tensor& x, const Tensor& d_out, WeightWork& work) const;

 private:
  ConstTensorView weight() const;
  /// Input products of cut columns, and of none, see the whole sequence.
  bool gathers_input() const { return rank_.splits_sequence() && cut_ != Cut::Rows; }

  const RankContext& rank_;
  Places places_;
  Cut cut_;
};

/// All rows of what tensor ranks hold shares of.
Tensor gathered(const RankContext& rank, const Tensor& share);

}  // namespace rehearse
