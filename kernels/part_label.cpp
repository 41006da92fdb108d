#include "kernels/part_label.h"

namespace rehearse {

std::string operator_label(const Operator& op) {
  std::string label = operator_name(op.name);
  if (op.recomputed) return label + " (recomputed)";
  if (op.pass == Pass::InputGradient) return label + " dgrad";
  if (op.pass == Pass::WeightGradient) return label + " wgrad";
  return label;
}

std::string layer_collective_label(CommGroup group, CollectiveKind kind, OperatorName of,
                                   const char* way) {
  if (group == CommGroup::Experts)
    return (of == OperatorName::ExpertUp ? "dispatch " : "combine ") + std::string(way);
  const std::string who = group == CommGroup::Context ? "context " : "tensor ";
  return who + collective_name(kind) + " " + way;
}

}  // namespace rehearse
