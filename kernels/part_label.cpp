#include "kernels/part_label.h"

namespace rehearse {

std::string operator_label(const Operator& op) {
  std::string label = operator_name(op.name);
  if (op.recomputed) return label + " (recomputed)";
  if (op.pass == Pass::InputGradient) return label + " dgrad";
  if (op.pass == Pass::WeightGradient) return label + " wgrad";
  return label;
}

const char* group_name(CommGroup group) {
  switch (group) {
    case CommGroup::Context:
      return "context";
    case CommGroup::TensorRow:
      return "tensor row";
    case CommGroup::TensorColumn:
      return "tensor column";
    case CommGroup::Tensor:
    case CommGroup::Experts:
      break;
  }
  return "tensor";
}

std::string layer_collective_label(CommGroup group, CollectiveKind kind, OperatorName of,
                                   const char* way) {
  if (group == CommGroup::Experts)
    return (of == OperatorName::ExpertUp ? "dispatch " : "combine ") + std::string(way);
  return group_name(group) + (" " + std::string(collective_name(kind))) + " " + way;
}

}  // namespace rehearse
