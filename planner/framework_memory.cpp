#include "planner/framework_memory.h"

#include <algorithm>

#include "kernels/layer.h"

namespace rehearse {
namespace {

/// What a step adds at the loss, where a framework keeps more copies of the logits than the model
/// of memory has; 0 where it does not, or the stage has no loss.
double at_the_loss(const StageMemory& memory, const LayerShape& shape,
                   const FrameworkCosts& costs) {
  if (costs.logit_bytes <= 0) return 0;
  double bytes = 0;
  for (const MemoryPart& part : memory.parts)
    if (part.name == "activations") bytes = part.bytes;
  const double vocabulary = shape.padded_vocab / (shape.vocabulary_parallel ? shape.tp : 1.0);
  for (const SavedTensor& tensor : head_saved_tensors(shape)) bytes += tensor.bytes;
  return bytes + head_workspace_bytes(shape) +
         costs.logit_bytes * static_cast<double>(shape.tokens()) * vocabulary;
}

/// Inputs of the two column-parallel products of each layer that stay gathered, beside the splits
/// that the model of memory has; an even split of layers.
double gathered_inputs(const StageMemory& memory, const LayerShape& shape, const Plan& plan,
                       const FrameworkCosts& costs) {
  if (!costs.keeps_gathered_inputs || !shape.sequence_parallel) return 0;
  const int chunks = plan.pp * plan.virtual_stages;
  const int layers = (shape.model.layers + chunks - 1) / chunks;
  const double split = boundary_bytes(shape);
  return memory.in_flight * layers * 2 * split * (shape.tp - 1);
}

/// Weights that fp8 products hold as they are and transposed take as many bytes as in 16 bits.
void drop_16_bit_weights(StageMemory& memory) {
  double fp8 = 0;
  for (const MemoryPart& part : memory.parts)
    if (part.name == "fp8 weights") fp8 = part.bytes;
  for (MemoryPart& part : memory.parts)
    if (part.name == "weights") part.bytes -= fp8;
}

}  // namespace

StageBytes framework_bytes_of_stage(const StageMemory& memory, const Model& model, const Plan& plan,
                                    int seq_len, const FrameworkCosts& costs) {
  const LayerShape shape = layer_shape(model, plan, seq_len);
  StageBytes bytes;
  double parameters = 0;
  for (const MemoryPart& part : memory.parts) {
    const bool stays = part.name == "weights" || part.name == "fp8 weights" ||
                       part.name == "gradients" || part.name == "optimizer";
    (part.name == "framework" ? bytes.beside
     : stays                  ? bytes.standing
                              : bytes.passing) += part.bytes;
    if (part.name == "fp8 weights" && costs.fp8_weights_alone)
      bytes.standing -= part.bytes;  // as they are and transposed: as many bytes as 16 bits take
    if (part.name == "gradients") parameters = part.bytes / bytes_of(plan.gradient_precision);
  }
  if (memory.stage == plan.pp - 1)
    bytes.passing = std::max(bytes.passing, at_the_loss(memory, shape, costs));
  bytes.passing += gathered_inputs(memory, shape, plan, costs);
  // Buckets of gradients; with sharded states a copy on their way in and out as well.
  const double buffer = costs.reduction_buffer_bytes * parameters;
  if (plan.dp > 1) bytes.standing += buffer;
  if (plan.zero > 0 && plan.dp > 1) bytes.standing += buffer * (1 + 1.0 / plan.dp);
  if (plan.pp > 1) bytes.standing += buffer;
  bytes.standing +=
      costs.gradient_copy_bytes * parameters / (plan.zero == 1 ? plan.dp * plan.cp : 1);
  return bytes;
}

double reserved_bytes(const StageBytes& bytes, const FrameworkCosts& costs) {
  const double tensors = bytes.standing + bytes.passing * (1 + costs.activation_overhead);
  return tensors * (1 + costs.fragmentation);
}

void add_framework_memory(StageMemory& memory, const Model& model, const Plan& plan, int seq_len,
                          const FrameworkCosts& costs) {
  const StageBytes bytes = framework_bytes_of_stage(memory, model, plan, seq_len, costs);
  if (costs.fp8_weights_alone) drop_16_bit_weights(memory);
  const double more = reserved_bytes(bytes, costs) + bytes.beside - memory.total_bytes();
  if (more > 0) memory.parts.push_back({"framework's copies and gaps", more});
}

}  // namespace rehearse
