#include "kernels/latent_attention.h"
#include "kernels/layer.h"
#include "kernels/layer_experts.h"
#include "kernels/layer_parts.h"
#include "plan/mixture.h"

namespace rehearse {
namespace {

double norm_parameters(const LayerShape& shape) {
  const LayerWidths at(shape);
  return (shape.model.norm == Norm::LayerNorm ? 2.0 : 1.0) * static_cast<double>(at.hidden);
}

double table_parameters(const LayerShape& shape, const LayerWidths& at) {
  return static_cast<double>(at.vocab) * shape.model.hidden;
}

double attention_parameters(const LayerShape& shape) {
  if (is_latent(shape.model)) return latent_parameters(shape);
  const LayerWidths at(shape);
  auto count = static_cast<double>(shape.model.hidden * (at.qkv + at.query));
  if (shape.model.linear_bias || shape.model.qkv_bias) count += static_cast<double>(at.qkv);
  if (shape.model.linear_bias) count += static_cast<double>(at.hidden);
  return count;
}

double feed_forward_parameters(const LayerShape& shape) {
  if (shape.model.experts.count > 0)
    return expert_parameters_per_rank(shape) + router_and_shared_parameters(shape);
  const LayerWidths at(shape);
  auto count = static_cast<double>(shape.model.hidden * (at.ffn_up + at.ffn));
  if (shape.model.linear_bias) count += static_cast<double>(at.ffn_up + at.hidden);
  return count;
}

}  // namespace

double layer_parameters_per_rank(const LayerShape& shape) {
  return attention_parameters(shape) + feed_forward_parameters(shape) + 2 * norm_parameters(shape);
}

double fp8_parameters_per_rank(const LayerShape& shape) {
  const LayerWidths at(shape);
  if (!at.fp8) return 0;
  const std::int64_t output = at.fp8_output ? at.query : 0;
  const double attention = is_latent(shape.model)
                               ? latent_fp8_elements(shape)
                               : static_cast<double>(shape.model.hidden * (at.qkv + output));
  return attention + (shape.model.experts.count > 0
                          ? expert_fp8_elements(shape)
                          : static_cast<double>(shape.model.hidden * (at.ffn_up + at.ffn)));
}

double embedding_parameters_per_rank(const LayerShape& shape) {
  const LayerWidths at(shape);
  double count = table_parameters(shape, at);
  if (shape.model.positions == Positions::Learned)
    count += static_cast<double>(shape.model.max_seq_len * at.hidden);
  return count;
}

double head_parameters_per_rank(const LayerShape& shape, bool with_table) {
  const LayerWidths at(shape);
  return norm_parameters(shape) + (with_table ? table_parameters(shape, at) : 0);
}

double table_parameters_per_rank(const LayerShape& shape) {
  return table_parameters(shape, LayerWidths(shape));
}

double mtp_parameters_per_rank(const LayerShape& shape, int module) {
  const LayerWidths at(shape);
  return layer_parameters_per_rank(mtp_layer_shape(shape, module)) +
         2.0 * static_cast<double>(at.hidden * at.hidden) + 3 * norm_parameters(shape);
}

double adam_traffic_bytes(Precision precision, Precision gradient_precision,
                          Precision moment_precision) {
  constexpr double kMasterBytes = 4;
  const double states = kMasterBytes + 2 * bytes_of(moment_precision);
  return bytes_of(gradient_precision) + 2 * states + (precision == Precision::Fp32 ? 0 : 2);
}

std::vector<Operator> optimizer_operators(double gradient_parameters, double owned_parameters,
                                          Precision precision, Precision gradient_precision,
                                          Precision moment_precision) {
  const double gradient = bytes_of(gradient_precision);
  // Scaling the gradients by the clip factor happens inside Adam. 11 FLOPs a parameter after
  // Calculon (Isaev et al. 2023).
  const double adam = adam_traffic_bytes(precision, gradient_precision, moment_precision);
  std::vector<Operator> work{memory_operator(OperatorName::GradientNorm, Pass::Update,
                                             gradient * owned_parameters, 2 * owned_parameters),
                             memory_operator(OperatorName::Adam, Pass::Update,
                                             adam * owned_parameters, 11 * owned_parameters),
                             memory_operator(OperatorName::GradientAccumulate, Pass::Update,
                                             gradient * gradient_parameters)};
  if (precision == Precision::Fp8)  // 16 bits to fp8, as it is and transposed
    work.push_back(memory_operator(OperatorName::Cast, Pass::Update, 4 * gradient_parameters,
                                   gradient_parameters));
  return work;
}

}  // namespace rehearse
