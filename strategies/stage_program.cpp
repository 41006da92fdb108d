#include "strategies/stage_program.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/part_label.h"

namespace rehearse {
namespace {

WorkKind work_of(const Operator& op) {
  if (op.pass == Pass::Update) return WorkKind::Optimizer;
  if (op.recomputed) return WorkKind::Recompute;
  switch (op.family) {
    case OperatorFamily::Gemm:
      return WorkKind::Gemm;
    case OperatorFamily::Attention:
      return WorkKind::Attention;
    case OperatorFamily::Memory:
      return WorkKind::Elementwise;
  }
  return WorkKind::Elementwise;
}

}  // namespace

void PricedTotals::add(const PricedTotals& other, double times) {
  flops += times * other.flops;
  for (std::size_t i = 0; i < seconds_by_source.size(); ++i)
    seconds_by_source[i] += times * other.seconds_by_source[i];
}

double ChunkProgram::parameters() const {
  return std::accumulate(bucket_parameters.begin(), bucket_parameters.end(), 0.0);
}

double ChunkProgram::expert_parameters() const {
  return std::accumulate(bucket_expert_parameters.begin(), bucket_expert_parameters.end(), 0.0);
}

std::int32_t Labels::of(const std::string& name) {
  const auto at = std::find(names_.begin(), names_.end(), name);
  if (at != names_.end()) return static_cast<std::int32_t>(at - names_.begin());
  names_.push_back(name);
  return static_cast<std::int32_t>(names_.size() - 1);
}

StageProgrammer::StageProgrammer(const LayerShape& shape, const CostModel& costs,
                                 CollectiveSeconds collective_seconds, Labels& labels,
                                 double heaviest_load)
    : costs_(costs),
      collective_seconds_(std::move(collective_seconds)),
      labels_(labels),
      heaviest_load_(heaviest_load),
      shape_(shape),
      embedding_forward_(price_all(embedding_forward(shape), "forward")),
      embedding_backward_(price_all(embedding_backward(shape), "backward")),
      head_forward_(price_all(head_forward(shape), "forward")),
      head_backward_(price_all(head_backward(shape), "backward")) {}

SegmentItem StageProgrammer::price(const Operator& op, PricedTotals& totals) const {
  const Cost cost = costs_.cost(op);
  totals.flops += op.flops;
  totals.seconds_by_source[static_cast<std::size_t>(cost.source)] += cost.seconds;
  SegmentItem item;
  item.seconds = cost.seconds;
  item.label = labels_.of(operator_label(op));
  item.work = work_of(op);
  if (heaviest_load_ > 0 && op.family == OperatorFamily::Attention) {
    // Between the mean and the heaviest micro-batch the price goes straight.
    Operator heaviest = op;
    heaviest.pair_share *= 1 + heaviest_load_;
    heaviest.flops *= 1 + heaviest_load_;
    item.per_load_s = (costs_.cost(heaviest).seconds - cost.seconds) / heaviest_load_;
  }
  return item;
}

StageProgrammer::Priced StageProgrammer::price_all(const std::vector<LayerItem>& items,
                                                   const char* suffix) const {
  Priced priced;
  for (const LayerItem& from : items) {
    ChunkItem to;
    if (from.is_collective) {
      to.is_collective = true;
      to.collective = from.collective;
      to.group = from.group;
      to.beside_next = from.beside_next;
      to.item.seconds = collective_seconds_(from);
      to.item.bytes = from.bytes;
      to.item.label =
          labels_.of(layer_collective_label(from.group, from.collective, from.op.name, suffix));
      to.item.work = WorkKind::TensorComm;
    } else {
      to.item = price(from.op, priced.totals);
      to.deviation = costs_.cost(from.op).deviation;
      to.is_product = from.op.family == OperatorFamily::Gemm;
      to.weight_gradient = from.op.pass == Pass::WeightGradient;
    }
    priced.items.push_back(to);
  }
  return priced;
}

const StageProgrammer::Variant& StageProgrammer::variant(const LayerShape& shape) const {
  for (const Variant& known : variants_)
    if (known.recompute == shape.recompute && known.precision == shape.precision &&
        known.experts == shape.model.experts.count && known.expert_load == shape.expert_load)
      return known;
  variants_.push_back({shape.recompute, shape.precision, shape.model.experts.count,
                       shape.expert_load, price_all(layer_forward(shape), "forward"),
                       price_all(layer_backward(shape), "backward"),
                       layer_parameters_per_rank(shape), expert_parameters_per_rank(shape),
                       fp8_parameters_per_rank(shape)});
  return variants_.back();
}

const StageProgrammer::Variant& StageProgrammer::mtp_module(int module) const {
  for (int next = static_cast<int>(mtp_modules_.size()); next <= module; ++next) {
    const LayerShape layer = mtp_layer_shape(shape_, next);
    mtp_modules_.push_back({layer.recompute, layer.precision, layer.model.experts.count,
                            layer.expert_load, price_all(mtp_forward(shape_, next), "forward"),
                            price_all(mtp_backward(shape_, next), "backward"),
                            mtp_parameters_per_rank(shape_, next),
                            expert_parameters_per_rank(layer), fp8_parameters_per_rank(layer)});
  }
  return mtp_modules_[static_cast<std::size_t>(module)];
}

ChunkProgram StageProgrammer::chunk(const ChunkExtent& extent, double bucket_parameters) const {
  struct Unit {
    const Priced *forward, *backward;
    std::int32_t layer;
    double parameters;
    double expert_parameters = 0, fp8_parameters = 0;
    std::int32_t bucket = 0;
  };
  std::vector<Unit> units;
  if (extent.has_embedding)
    units.push_back(
        {&embedding_forward_, &embedding_backward_, -1, embedding_parameters_per_rank(shape_)});
  for (std::int32_t i = 0; i < extent.layer_count; ++i) {
    const std::int32_t layer = extent.first_layer + i;
    const Variant& kind = variant(shape_of_layer(shape_, layer, i));
    units.push_back({&kind.forward, &kind.backward, layer, kind.parameters, kind.expert_parameters,
                     kind.fp8_parameters});
  }
  if (extent.has_head)
    units.push_back({&head_forward_, &head_backward_, -1,
                     head_parameters_per_rank(shape_, extent.head_has_table)});
  for (int module = 0; extent.has_head && module < shape_.model.mtp_layers; ++module) {
    const Variant& kind = mtp_module(module);
    const double table =
        module == 0 && extent.mtp_has_table ? table_parameters_per_rank(shape_) : 0;
    units.push_back({&kind.forward, &kind.backward, -1, kind.parameters + table,
                     kind.expert_parameters, kind.fp8_parameters});
  }

  ChunkProgram program;
  double open = 0;  // parameters of the bucket being filled
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) {
    if (program.bucket_parameters.empty() || open >= bucket_parameters) {
      program.bucket_parameters.push_back(0);
      program.bucket_expert_parameters.push_back(0);
      program.bucket_fp8_parameters.push_back(0);
      open = 0;
    }
    open += unit->parameters;
    program.bucket_parameters.back() += unit->parameters;
    program.bucket_expert_parameters.back() += unit->expert_parameters;
    program.bucket_fp8_parameters.back() += unit->fp8_parameters;
    unit->bucket = static_cast<std::int32_t>(program.bucket_parameters.size() - 1);
  }
  const auto append = [](std::vector<ChunkItem>& out, const Priced& priced, const Unit& unit) {
    for (ChunkItem item : priced.items) {
      item.item.layer = unit.layer;
      item.bucket = unit.bucket;
      out.push_back(item);
    }
  };
  for (const Unit& unit : units) append(program.forward, *unit.forward, unit);
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit)
    append(program.backward, *unit->backward, *unit);
  for (const Unit& unit : units) {
    program.totals.add(unit.forward->totals, 1);
    program.totals.add(unit.backward->totals, 1);
  }
  return program;
}

}  // namespace rehearse
