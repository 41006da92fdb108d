#include "kernels/profiler/model_shapes.h"

#include <algorithm>

#include "kernels/layer.h"
#include "plan/model_catalogue.h"

namespace rehearse {
namespace {

/// Whether tensor ranks share the model evenly.
bool divides(const Model& model, int tp) {
  return model.heads % tp == 0 && model.kv_heads % tp == 0 && model.ffn % tp == 0 &&
         model.hidden % tp == 0;
}

template <class Shape>
void add_new(std::vector<Shape>& shapes, const Shape& shape) {
  if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
}

/// The layers that simulations price, so that what is measured is what will be asked for.
void add_layers(const Model& model, int tp, std::vector<LinearShape>& shapes) {
  Plan plan;
  plan.tp = tp;
  const LayerShape shape = layer_shape(model, plan, 1024);
  for (const auto& items : {layer_forward(shape), head_forward(shape)})
    for (const LayerItem& item : items) {
      const Operator& op = item.op;
      const bool is_linear = !item.is_collective && op.family == OperatorFamily::Gemm &&
                             op.pass == Pass::Forward && op.batch <= 1 && !is_expert_gemm(op);
      if (is_linear) add_new(shapes, LinearShape{.outputs = op.n, .inputs = op.k});
    }
}

}  // namespace

const std::vector<LinearShape>& model_linear_shapes() {
  static const std::vector<LinearShape> shapes = [] {
    std::vector<LinearShape> all;
    for (const int tp : {1, 2, 4, 8})
      for (const Model& model : model_catalogue())
        if (divides(model, tp)) add_layers(model, tp, all);
    return all;
  }();
  return shapes;
}

const std::vector<ExpertShape>& model_expert_shapes() {
  static const std::vector<ExpertShape> shapes = [] {
    std::vector<ExpertShape> all;
    for (const int ranks : {8, 1})
      for (const Model& model : model_catalogue()) {
        const Experts& experts = model.experts;
        if (experts.count == 0 || experts.count % ranks != 0) continue;
        const std::int64_t width = experts.ffn > 0 ? experts.ffn : model.ffn;
        const double rows = static_cast<double>(experts.active) * ranks / experts.count;
        const std::int64_t up = model.activation == Activation::Swiglu ? 2 * width : width;
        add_new(all, ExpertShape{experts.count / ranks, up, model.hidden, rows});
        add_new(all, ExpertShape{experts.count / ranks, model.hidden, width, rows});
      }
    return all;
  }();
  return shapes;
}

}  // namespace rehearse
