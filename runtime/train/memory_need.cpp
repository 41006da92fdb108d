#include "runtime/train/memory_need.h"

#include "kernels/layer.h"
#include "plan/units.h"

namespace rehearse {

MemoryNeed least_memory(const PlanFile& file) {
  const Plan& plan = file.plan;
  LayerShape shape = layer_shape(file.model, plan, file.workload.seq_len);
  shape.own_runner = true;
  const double layers = file.model.layers;
  // A tied table on two stages is there twice, which is left out.
  const double of_replica =
      plan.tp * (layers * layer_parameters_per_rank(shape) + embedding_parameters_per_rank(shape) +
                 head_parameters_per_rank(shape, !file.model.tied_embeddings));
  const double replicas = static_cast<double>(plan.dp) * plan.cp;
  const bool is_wide = plan.precision == Precision::Fp32;
  const double kept = bytes_of(plan.precision) + 4;  // weights, fp32 gradients
  const double state = 8 + (is_wide ? 0 : 4);        // two moments, master weights
  MemoryNeed need;
  // With ZeRO the ranks of a replica's copies share the state.
  need.state_bytes = of_replica * (replicas * kept + (plan.zero > 0 ? 1 : replicas) * state);
  double saved = 0;
  for (const SavedTensor& tensor : layer_saved_tensors(shape)) saved += tensor.bytes;
  need.activation_bytes = replicas * plan.tp * layers * saved;
  return need;
}

std::string why_it_does_not_fit(const PlanFile& file, int ranks_here, double available_bytes) {
  const MemoryNeed need = least_memory(file);
  const double share = static_cast<double>(ranks_here) / world_size(file.plan);
  if (available_bytes <= 0 || share * need.bytes() <= available_bytes) return {};
  return "the plan does not fit: its " +
         (ranks_here == 1 ? "rank" : std::to_string(ranks_here) + " ranks") +
         " here would hold at least " + format_bytes(share * need.bytes()) + " (" +
         format_bytes(share * need.state_bytes) +
         " of weights, gradients and optimizer state), and " + format_bytes(available_bytes) +
         " of memory are free";
}

}  // namespace rehearse
