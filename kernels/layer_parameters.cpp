#include "kernels/layer.h"
#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

double norm_parameters(const LayerShape& shape) {
  return (shape.model.norm == Norm::LayerNorm ? 2.0 : 1.0) * shape.model.hidden;
}

double table_parameters(const LayerShape& shape, const LayerWidths& at) {
  return static_cast<double>(at.vocab) * shape.model.hidden;
}

}  // namespace

double layer_parameters_per_rank(const LayerShape& shape) {
  const LayerWidths at(shape);
  const Model& model = shape.model;
  const std::int64_t columns = at.qkv + at.ffn_up, rows = at.query + at.ffn;
  auto count = static_cast<double>(at.hidden * (columns + rows));
  if (model.linear_bias) {
    count += static_cast<double>(columns + 2 * at.hidden);
  } else if (model.qkv_bias) {
    count += static_cast<double>(at.qkv);
  }
  return count + 2 * norm_parameters(shape);
}

double fp8_parameters_per_rank(const LayerShape& shape) {
  const LayerWidths at(shape);
  if (!at.fp8) return 0;
  const std::int64_t output = at.fp8_output ? at.query : 0;
  return static_cast<double>(at.hidden * (at.qkv + output + at.ffn_up + at.ffn));
}

double embedding_parameters_per_rank(const LayerShape& shape) {
  const LayerWidths at(shape);
  double count = table_parameters(shape, at);
  if (shape.model.positions == Positions::Learned)
    count += static_cast<double>(shape.model.max_seq_len) * shape.model.hidden;
  return count;
}

double head_parameters_per_rank(const LayerShape& shape, bool with_table) {
  const LayerWidths at(shape);
  return norm_parameters(shape) + (with_table ? table_parameters(shape, at) : 0);
}

std::vector<Operator> optimizer_operators(double gradient_parameters, double owned_parameters,
                                          Precision precision, Precision gradient_precision) {
  const double gradient = bytes_of(gradient_precision);
  const bool fp32 = precision == Precision::Fp32;
  // Master weights and two moments are read and written in fp32 (12 + 12 bytes), the gradient is
  // read, and the copy that layers use is written in 16 bits. Scaling the gradients by the clip
  // factor happens inside Adam. 11 FLOPs a parameter after Calculon (Isaev et al. 2023).
  const double adam = gradient + 24 + (fp32 ? 0 : 2);
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
