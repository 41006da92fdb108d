#include "kernels/layer_parts.h"

#include <algorithm>

#include "kernels/expert_load.h"
#include "plan/ensure.h"

namespace rehearse {

LayerShape layer_shape(const Model& model, const Plan& plan, int seq_len, const Routing& routing) {
  LayerShape shape;
  shape.model = model;
  shape.tp = plan.tp;
  shape.tensor_rows = plan.tensor_rows;
  shape.cp = plan.cp;
  shape.ep = plan.ep;
  shape.expert_tp = plan.experts.tp > 0 ? plan.experts.tp : plan.tp;
  shape.expert_load = expert_load(plan, routing);
  const Experts& experts = model.experts;
  const bool uneven = experts.count > 0 && routing.imbalance > 1 && routing.imbalance < plan.ep;
  if (uneven && !plan.experts.pad && experts.leading_dense < model.layers)
    shape.expert_deviation =
        popularity_deviation(experts.count, plan.ep, experts.leading_dense, model.layers, routing);
  shape.expert_capacity = plan.experts.capacity;
  shape.routing_seed = routing.seed;
  shape.micro_batch = plan.micro_batch;
  shape.seq_len = seq_len;
  shape.padded_vocab = padded_vocab(model, plan.vocabulary_parallel ? plan.tp : 1);
  shape.sequence_parallel = plan.sequence_parallel && plan.tp > 1;
  shape.vocabulary_parallel = plan.vocabulary_parallel;
  shape.recompute = plan.recompute;
  for (const std::string& part : plan.recompute_operators) {
    shape.repeated.attention |= part == "attention";
    shape.repeated.norm |= part == "norm";
    shape.repeated.ffn |= part == "ffn";
    shape.repeated.ffn_activation |= part == "ffn-activation";
    shape.repeated.latent_up |= part == "latent-up";
  }
  shape.recompute_layers = plan.recompute_layers;
  shape.fp8 = plan.fp8;
  shape.store = plan.store;
  shape.attention = plan.attention;
  shape.precision = plan.precision;
  shape.gradient_precision = plan.gradient_precision;
  shape.dropout = plan.dropout;
  shape.context = plan.context;
  shape.context_balanced = plan.context_balanced;
  shape.context_overlap = plan.overlap.context;
  shape.own_runner = plan.framework == Framework::Rehearse;
  return shape;
}

const char* collective_name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::AllReduce:
      return "all_reduce";
    case CollectiveKind::AllGather:
      return "all_gather";
    case CollectiveKind::ReduceScatter:
      return "reduce_scatter";
    case CollectiveKind::Broadcast:
      return "broadcast";
    case CollectiveKind::AllToAll:
      return "all_to_all";
    case CollectiveKind::SendReceive:
      return "send_receive";
  }
  ensure(false, "every collective has a name");
  return "";
}

LayerWidths::LayerWidths(const LayerShape& shape) {
  const Model& model = shape.model;
  rows = shape.tensor_rows;
  columns = shape.tensor_columns();
  tokens = shape.tokens();
  split_tokens = shape.sequence_parallel ? tokens / columns : tokens;
  hidden = model.hidden / rows;
  heads = model.heads / shape.tp;
  kv_heads = std::max(1, model.kv_heads / shape.tp);
  query = heads * model.head_dim;
  key = kv_heads * model.head_dim;
  qkv = query + 2 * key;
  ffn = model.ffn / shape.tp;
  ffn_up = model.activation == Activation::Swiglu ? 2 * ffn : ffn;
  vocab = shape.vocabulary_parallel ? shape.padded_vocab / shape.tp : shape.padded_vocab;
  fp8 = shape.precision == Precision::Fp8;
  activation_precision = fp8 ? Precision::Bf16 : shape.precision;
  element_bytes = bytes_of(activation_precision);
  gradient_bytes = bytes_of(shape.gradient_precision);
  dropout = shape.dropout > 0;
  fp8_output = fp8 && shape.fp8.attention_output;
  fp8_bytes = fp8_element_bytes(shape.fp8.scaling);
  kept_bytes = fp8 && shape.fp8.weight_gradient ? fp8_bytes : element_bytes;
  fp8_gathers = fp8 && shape.fp8.gathers;
}

LayerShape own_share(const LayerShape& shape) {
  LayerShape own = shape;
  own.cp = 1;
  own.micro_batch = 1;
  own.seq_len = LayerWidths(shape).split_tokens;
  own.tp = 1;
  own.sequence_parallel = false;
  return own;
}

bool is_stored(const LayerShape& shape, StoredAs store) {
  const bool keeps = shape.recompute == Recompute::None || shape.recompute == Recompute::Selective;
  return keeps && store != StoredAs::Computed;
}

double stored_bytes(const LayerShape& shape, StoredAs store, double computed_bytes) {
  if (!is_stored(shape, store)) return computed_bytes;
  constexpr double kMoreOfE5m6 = 0.5;  // 12 bits, with the same scales
  return fp8_element_bytes(Fp8Scaling::Block) + (store == StoredAs::E5m6 ? kMoreOfE5m6 : 0);
}

void add_store(const LayerShape& shape, StoredAs store, double elements, Pass pass,
               ItemList& items) {
  if (!is_stored(shape, store)) return;
  const double computed = LayerWidths(shape).element_bytes;
  items.add(memory_operator(OperatorName::Cast, pass,
                            (computed + stored_bytes(shape, store, computed)) * elements,
                            elements));
}

void ItemList::add(const Operator& op) {
  LayerItem item;
  item.op = op;
  items_.push_back(item);
}

void ItemList::collective(CollectiveKind kind, OperatorName name, Pass pass, double bytes,
                          bool beside_next) {
  LayerItem item;
  item.is_collective = true;
  item.op.name = name;
  item.op.pass = pass;
  item.op.family = OperatorFamily::Memory;
  item.collective = kind;
  item.bytes = bytes;
  item.beside_next = beside_next;
  items_.push_back(item);
}

void ItemList::row_collective(const LayerWidths& at, CollectiveKind kind, OperatorName name,
                              Pass pass, double bytes, bool beside_next) {
  if (at.columns == 1) return;
  collective(kind, name, pass, bytes, beside_next);
  if (at.rows > 1) items_.back().group = CommGroup::TensorRow;
}

void ItemList::column_collective(const LayerWidths& at, CollectiveKind kind, OperatorName name,
                                 Pass pass, double bytes, bool beside_next) {
  if (at.rows == 1) return;
  collective(kind, name, pass, bytes, beside_next);
  items_.back().group = CommGroup::TensorColumn;
}

void ItemList::to_experts() {
  ensure(!items_.empty() && items_.back().is_collective, "a collective was just added");
  items_.back().group = CommGroup::Experts;
}

void ItemList::context_collective(CollectiveKind kind, Pass pass, double bytes, bool beside_next) {
  collective(kind, OperatorName::Attention, pass, bytes, beside_next);
  items_.back().group = CommGroup::Context;
}

void ItemList::append(const std::vector<LayerItem>& items, bool recomputed) {
  for (LayerItem item : items) {
    item.op.recomputed = recomputed;
    items_.push_back(item);
  }
}

void ItemList::append_as_is(const std::vector<LayerItem>& items) {
  items_.insert(items_.end(), items.begin(), items.end());
}

std::vector<LayerItem> with_weight_gradients_last(std::vector<LayerItem> items) {
  const auto is_last = [](const LayerItem& item) { return item.op.pass == Pass::WeightGradient; };
  // What was to run beside a weight gradient has nothing beside it any more, and a gather that
  // only the weight gradient needs now comes right before it.
  for (LayerItem& item : items) item.beside_next = false;
  std::stable_partition(items.begin(), items.end(),
                        [&](const LayerItem& item) { return !is_last(item); });
  return items;
}

}  // namespace rehearse
