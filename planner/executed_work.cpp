#include "planner/executed_work.h"

#include "kernels/layer.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

class Tally {
 public:
  Tally(ExecutedWork& work, const CostModel& costs) : work_(work), costs_(costs) {}

  void add(const std::vector<LayerItem>& items, double times) {
    for (const LayerItem& item : items)
      if (!item.is_collective) add(item.op, times);
  }
  void add(const Operator& op, double times) {
    const Cost cost = costs_.cost(op);
    work_.flops += op.flops * times;
    work_.seconds_by_source[static_cast<std::size_t>(cost.source)] += cost.seconds * times;
  }

 private:
  ExecutedWork& work_;
  const CostModel& costs_;
};

/// Parameters of one rank of a stage, as its gradient norm and Adam see them.
double stage_parameters(const LayerShape& shape, int layers, bool first, bool last) {
  double count = layers * layer_parameters_per_rank(shape);
  if (first) count += embedding_parameters_per_rank(shape);
  if (last) count += head_parameters_per_rank(shape, !first || !shape.model.tied_embeddings);
  return count;
}

}  // namespace

ExecutedWork executed_work(const Model& model, const Plan& plan, const Workload& workload,
                           const std::vector<const CostModel*>& stage_costs) {
  ensure(static_cast<int>(stage_costs.size()) == plan.pp, "each stage has its cost model");
  ExecutedWork work;
  const LayerShape shape = layer_shape(model, plan, workload.seq_len);
  const auto layer_parts = {layer_forward(shape), layer_backward(shape)};
  const auto embedding_parts = {embedding_forward(shape), embedding_backward(shape)};
  const auto head_parts = {head_forward(shape), head_backward(shape)};
  const std::vector<int> layers_of_chunk = chunk_layers(plan, model.layers);
  const double ranks = double(plan.tp) * plan.cp * plan.dp;  // of one stage
  const double times = double(micro_batches(plan, workload.global_batch)) * ranks;

  for (int stage = 0; stage < plan.pp; ++stage) {
    Tally tally(work, *stage_costs[static_cast<std::size_t>(stage)]);
    int layers = 0;
    for (int chunk = 0; chunk < plan.virtual_stages; ++chunk)
      layers += layers_of_chunk[static_cast<std::size_t>(chunk * plan.pp + stage)];
    const bool first = stage == 0, last = stage == plan.pp - 1;
    for (const auto& items : layer_parts) tally.add(items, layers * times);
    for (const auto& items : embedding_parts) tally.add(items, first ? times : 0);
    for (const auto& items : head_parts) tally.add(items, last ? times : 0);
    const double parameters = stage_parameters(shape, layers, first, last);
    const double owned = plan.zero > 0 ? parameters / plan.dp : parameters;
    for (const Operator& op :
         optimizer_operators(parameters, owned, plan.precision, plan.gradient_precision))
      tally.add(op, ranks);
  }
  return work;
}

}  // namespace rehearse
