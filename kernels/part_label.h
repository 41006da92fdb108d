#pragma once
#include <string>

#include "kernels/layer.h"

namespace rehearse {

/// What a timeline calls an operator: "qkv", "qkv dgrad", "qkv (recomputed)". The simulation and
/// real runs use the same words, so that their events can be laid side by side.
std::string operator_label(const Operator& op);

/// Of ranks that a layer's collective joins, in names: "tensor", "tensor row".
const char* group_name(CommGroup group);

/// What a timeline calls a collective inside layers: "tensor all_reduce forward".
std::string layer_collective_label(CommGroup group, CollectiveKind kind, OperatorName of,
                                   const char* way);

}  // namespace rehearse
