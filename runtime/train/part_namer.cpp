#include "runtime/train/part_namer.h"

#include <algorithm>

#include "kernels/part_label.h"

namespace rehearse {
namespace {

bool is_forward(ActionKind kind) { return kind == ActionKind::Forward; }

std::vector<LayerItem> list_of(const LayerShape& shape, ModelUnit unit, bool forward) {
  switch (unit) {
    case ModelUnit::Embedding:
      return forward ? embedding_forward(shape) : embedding_backward(shape);
    case ModelUnit::Layer:
      return forward ? layer_forward(shape) : layer_backward(shape);
    case ModelUnit::Head:
      return forward ? head_forward(shape) : head_backward(shape);
  }
  return {};
}

/// Whether an item of the backward belongs to an action: a split backward has two halves.
bool belongs(ActionKind action, const Operator& op) {
  if (action == ActionKind::WeightGradient) return op.pass == Pass::WeightGradient;
  return action != ActionKind::InputGradient || op.pass != Pass::WeightGradient;
}

}  // namespace

PartNamer::PartNamer(const PlanFile& file)
    : shape_(layer_shape(file.model, file.plan, file.workload.seq_len)) {
  shape_.own_runner = true;
}

PartNamer::Sort PartNamer::sort_of(const Operator& op) {
  if (op.family == OperatorFamily::Attention) return Sort::Attention;
  if (op.family == OperatorFamily::Gemm) return Sort::Product;
  switch (op.name) {
    case OperatorName::Norm:
    case OperatorName::FinalNorm:
      return Sort::Norm;
    case OperatorName::ResidualAdd:
      return Sort::Residual;
    case OperatorName::Attention:
      return Sort::Joined;
    case OperatorName::Rope:
      return Sort::Rotation;
    case OperatorName::FfnActivation:
      return Sort::Activation;
    case OperatorName::Embedding:
      return Sort::Embedding;
    case OperatorName::CrossEntropy:
      return Sort::CrossEntropy;
    default:
      return op.pass == Pass::WeightGradient ? Sort::BiasSum : Sort::None;
  }
}

PartNamer::Sort PartNamer::sort_of(const OperatorCall& call) {
  if (std::holds_alternative<Gemm>(call)) return Sort::Product;
  if (std::holds_alternative<ColumnSum>(call)) return Sort::BiasSum;
  if (std::holds_alternative<NormForward>(call) || std::holds_alternative<NormBackward>(call))
    return Sort::Norm;
  if (std::holds_alternative<AttentionForward>(call) ||
      std::holds_alternative<AttentionBackward>(call))
    return Sort::Attention;
  if (std::holds_alternative<AttentionJoin>(call)) return Sort::Joined;
  if (std::holds_alternative<Rope>(call)) return Sort::Rotation;
  if (std::holds_alternative<ActivationForward>(call) ||
      std::holds_alternative<ActivationBackward>(call))
    return Sort::Activation;
  if (std::holds_alternative<EmbeddingForward>(call) ||
      std::holds_alternative<EmbeddingBackward>(call))
    return Sort::Embedding;
  if (std::holds_alternative<CrossEntropyForward>(call) ||
      std::holds_alternative<CrossEntropyRescale>(call) ||
      std::holds_alternative<CrossEntropyBackward>(call))
    return Sort::CrossEntropy;
  return Sort::None;
}

std::vector<PartNamer::Item> PartNamer::items_of(ModelUnit unit, int layer, int index) const {
  const LayerShape shape = unit == ModelUnit::Layer ? shape_of_layer(shape_, layer, index) : shape_;
  std::vector<Item> items;
  for (const LayerItem& from : list_of(shape, unit, is_forward(action_))) {
    if (from.is_collective || (!is_forward(action_) && !belongs(action_, from.op))) continue;
    items.push_back({.sort = sort_of(from.op), .op = from.op, .label = operator_label(from.op)});
  }
  return items;
}

void PartNamer::begin_unit(ModelUnit unit, int layer, int index) {
  // Layers of a dense model differ in whether they recompute only.
  const int recomputes =
      unit == ModelUnit::Layer && shape_of_layer(shape_, layer, index).recompute != Recompute::None;
  const auto [at, is_new] = known_.try_emplace(Key{unit, action_, recomputes});
  if (is_new) at->second = items_of(unit, layer, index);
  open_ = &at->second;
  for (Item& item : *open_) item.is_taken = false;
}

/// The next of its sort; where all are taken (a call more than the list has), the last of them.
const PartNamer::Item* PartNamer::take(Sort sort) {
  Item* last = nullptr;
  for (Item& item : *open_) {
    if (item.sort != sort) continue;
    last = &item;
    if (item.is_taken) continue;
    item.is_taken = true;
    return &item;
  }
  return last;
}

/// Outside of units.
std::string PartNamer::step_part(const OperatorCall& call) const {
  if (std::holds_alternative<AdamUpdate>(call)) return operator_name(OperatorName::Adam);
  const bool is_norm = std::holds_alternative<SquaredSum>(call) ||
                       std::holds_alternative<ClipFactor>(call) ||
                       std::holds_alternative<Cast>(call);
  return is_norm ? operator_name(OperatorName::GradientNorm) : call_name(call);
}

PartNamer::Part PartNamer::name(const OperatorCall& call) {
  if (open_ == nullptr) return {step_part(call)};
  Sort sort = sort_of(call);
  if (std::holds_alternative<Add>(call)) sort = Sort::Residual;
  if (std::holds_alternative<Cast>(call)) sort = Sort::CrossEntropy;
  const Item* item = take(sort);
  if (item == nullptr) return {call_name(call)};
  return {item->label, static_cast<int>(item - open_->data())};
}

std::vector<Operator> PartNamer::operators() const {
  std::vector<Operator> out;
  if (open_ != nullptr)
    for (const Item& item : *open_) out.push_back(item.op);
  return out;
}

int place_in_chunk(const ParameterStore& store, const Unit& unit) {
  int first = unit.layer;
  for (const Unit& other : store.units())
    if (other.kind == ModelUnit::Layer && other.chunk == unit.chunk)
      first = std::min(first, other.layer);
  return unit.layer - first;
}

std::optional<PartNamer::TransferName> PartNamer::name(const TransferNote& note) const {
  const char* way = is_forward(action_) ? "forward" : "backward";
  switch (note.traffic) {
    case Traffic::Tensor:
      return TransferName{Stream::Tensor, layer_collective_label(CommGroup::Tensor, note.kind,
                                                                 OperatorName::Qkv, way)};
    case Traffic::Context:
      return TransferName{Stream::Tensor, layer_collective_label(CommGroup::Context, note.kind,
                                                                 OperatorName::Attention, way)};
    case Traffic::Data:
      return TransferName{Stream::Data, note.kind == CollectiveKind::ReduceScatter
                                            ? "gradient reduce-scatter"
                                            : "gradient all-reduce"};
    case Traffic::Parameter:
      return TransferName{Stream::Data, "parameter all-gather"};
    case Traffic::Pipeline:
      return is_forward(action_) ? TransferName{Stream::PipelineForward, "send activations"}
                                 : TransferName{Stream::PipelineBackward, "send gradients"};
    case Traffic::Control:
      return TransferName{Stream::Data, "gradient norm all-reduce"};
    case Traffic::Sequence:
      return TransferName{Stream::Tensor, "sequence-parallel norms all-reduce"};
    case Traffic::Report:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace rehearse
