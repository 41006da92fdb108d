// Modules that predict further tokens (DeepSeek-V3, arXiv 2412.19437, §2.2). With x the stream
// behind the last layer and e the embeddings of the tokens one place further on:
//   e → norm ┐
//            ├ side by side, 2h → h → a layer → norm → head → loss
//   x → norm ┘
// Embedding and head are the model's own. With D modules the next one's x is the layer's result.

#include <algorithm>

#include "kernels/layer.h"
#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

/// Kept in 16 bits in fp8 models, as embedding and head are.
Linear projection(const LayerWidths& at) {
  return {.name = OperatorName::MtpProjection,
          .in = 2 * at.hidden,
          .out = at.hidden,
          .column_parallel = true,
          .bias = false,
          .fp8 = false};
}

void both_norms(const LayerShape& shape, ItemList& items) {
  add_norm_forward(shape, OperatorName::Norm, items);
  add_norm_forward(shape, OperatorName::Norm, items);
}

}  // namespace

LayerShape mtp_layer_shape(const LayerShape& shape, int module) {
  const int last = shape.model.layers - 1;
  // It comes behind all layers of its chunk.
  LayerShape made = shape_of_layer(shape, last, std::max(shape.recompute_layers, 0));
  if (made.model.experts.count > 0)
    made.expert_load = load_of_layer(shape, shape.model.layers + module);
  return made;
}

std::vector<LayerItem> mtp_forward(const LayerShape& shape, int module) {
  const LayerWidths at(shape);
  ItemList items;
  items.append(embedding_forward(shape), false);
  both_norms(shape, items);
  linear_forward(own_share(shape), projection(at), items);
  items.append(layer_forward(mtp_layer_shape(shape, module)), false);
  items.append(head_forward(shape), false);
  return items.take();
}

std::vector<LayerItem> mtp_backward(const LayerShape& shape, int module,
                                    bool weight_gradients_last) {
  const LayerWidths at(shape);
  const LayerShape layer = mtp_layer_shape(shape, module);
  ItemList items;
  // What is repeated says so of itself.
  items.append_as_is(head_backward(shape));
  items.append_as_is(layer_backward(layer));
  if (repeated_parts(layer).norm) {
    ItemList again;
    both_norms(shape, again);
    items.append(again.take(), true);
  }
  linear_backward(own_share(shape), projection(at), items);
  add_norm_backward(shape, OperatorName::Norm, items);
  add_norm_backward(shape, OperatorName::Norm, items);
  items.append_as_is(embedding_backward(shape));
  // The stream's gradient is added to the one that comes from the main model's loss.
  const double elements = static_cast<double>(at.split_tokens) * static_cast<double>(at.hidden);
  items.add(memory_operator(OperatorName::ResidualAdd, Pass::InputGradient,
                            3 * at.element_bytes * elements, elements));
  return weight_gradients_last ? with_weight_gradients_last(items.take()) : items.take();
}

}  // namespace rehearse
