#include "runtime/train/linear.h"

#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

Tensor gather_target(const RankContext& rank, const Tensor& share) {
  return rank.empty({share.size(0) * rank.plan.tp, share.size(1)});
}

void multiply_weight_gradient(const RankContext& rank, const WeightWork::Product& product,
                              const Tensor& x) {
  rank.device.run(
      Gemm{.a = product.d_out,
           .b = x,
           .out = slice_rows(rank.store.gradient(product.weight), product.first_row, product.rows),
           .transpose_a = true,
           .accumulate = true});
  if (product.bias < 0) return;
  rank.device.run(ColumnSum{
      .x = product.d_bias_rows,
      .out = slice_rows(rank.store.gradient(product.bias), product.first_row, product.rows),
      .accumulate = true});
}

}  // namespace

Tensor gathered(const RankContext& rank, const Tensor& share) {
  Tensor all = gather_target(rank, share);
  rank.tensor.all_gather(share, all, Traffic::Tensor);
  return all;
}

void WeightWork::add(const RankContext& rank, Product product) {
  if (deferred_) {
    products_.push_back(std::move(product));
    return;
  }
  ensure(!product.gathers_x, "work done at once has its input at hand");
  multiply_weight_gradient(rank, product, product.x);
}

void WeightWork::run(const RankContext& rank, std::int32_t unit) {
  for (Product& product : products_) {
    if (product.unit != unit) continue;
    multiply_weight_gradient(rank, product,
                             product.gathers_x ? gathered(rank, product.x) : product.x);
    product = {};
    product.unit = -1;
  }
}

ShardedLinear::ShardedLinear(const RankContext& rank, Places places, Cut cut)
    : rank_(rank), places_(places), cut_(rank.plan.tp > 1 ? cut : Cut::None) {
  if (places_.rows < 0) places_.rows = rank.store.weight(places_.weight).size(0);
}

ConstTensorView ShardedLinear::weight() const {
  return slice_rows(rank_.store.weight(places_.weight), places_.first_row, places_.rows);
}

Tensor ShardedLinear::forward(const Tensor& x) const {
  const Tensor whole = gathers_input() ? gathered(rank_, x) : x;
  Tensor out = rank_.empty({whole.size(0), places_.rows});
  Gemm call{.a = whole, .b = weight(), .out = out, .transpose_b = true};
  if (places_.bias >= 0 && (cut_ != Cut::Rows || rank_.tensor.rank() == 0)) {
    call.epilogue = Epilogue::Bias;
    call.bias = slice_rows(rank_.store.weight(places_.bias), places_.first_row, places_.rows);
  }
  rank_.device.run(call);
  if (cut_ != Cut::Rows) return out;
  if (!rank_.splits_sequence()) {
    rank_.tensor.all_reduce(out, Reduction::Sum, Traffic::Tensor);
    return out;
  }
  Tensor share = rank_.empty({out.size(0) / rank_.plan.tp, out.size(1)});
  rank_.tensor.reduce_scatter(out, share, Traffic::Tensor);
  return share;
}

Tensor ShardedLinear::backward(const Tensor& x, const Tensor& d_out, WeightWork& work) const {
  const bool split = rank_.splits_sequence();
  const Tensor d_whole = split && cut_ == Cut::Rows ? gathered(rank_, d_out) : d_out;
  WeightWork::Product product{.x = x,
                              .gathers_x = gathers_input(),
                              .d_out = d_whole,
                              .d_bias_rows = d_out,
                              .weight = places_.weight,
                              .bias = places_.bias,
                              .first_row = places_.first_row,
                              .rows = places_.rows,
                              .unit = places_.unit};
  // The gather that only the weights need runs beside the product for the input, and the sum of
  // the input's gradient beside the product for the weights.
  Transfer gather;
  if (product.gathers_x && !work.deferred()) {
    product.x = gather_target(rank_, x);
    product.gathers_x = false;
    gather = rank_.tensor.start_all_gather(x, product.x, Traffic::Tensor);
  }
  const ConstTensorView matrix = weight();
  Tensor d_x = rank_.empty({d_whole.size(0), matrix.size(1)});
  rank_.device.run(Gemm{.a = d_whole, .b = matrix, .out = d_x});
  finish(gather);
  Transfer sum;
  Tensor result = d_x;
  if (cut_ == Cut::Columns && !split) {
    sum = rank_.tensor.start_all_reduce(d_x, Reduction::Sum, Traffic::Tensor);
  } else if (cut_ == Cut::Columns) {
    result = rank_.empty({d_x.size(0) / rank_.plan.tp, d_x.size(1)});
    sum = rank_.tensor.start_reduce_scatter(d_x, result, Traffic::Tensor);
  } else if (cut_ == Cut::None && split) {
    result = rank_.own_rows(d_x);
  }
  work.add(rank_, std::move(product));
  finish(sum);
  return result;
}

}  // namespace rehearse
