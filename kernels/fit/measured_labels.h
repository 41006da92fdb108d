#pragma once
#include <optional>
#include <string_view>

#include "kernels/operator.h"

namespace rehearse {

/// What a table of measurements calls an operator bound by memory, and what a step calls it.
struct MeasuredLabel {
  /// The operator of a step that is priced by it; nothing: no step has it by itself.
  std::optional<OperatorName> priced_as;
  /// Another kernel than the one that stands for its name: a sample, no part of the fit.
  bool apart = false;
};

/// Names of operators mean themselves; others, such as "gelu" or "moe_combine", are kinds of one.
/// Nothing where the label is unknown.
std::optional<MeasuredLabel> measured_label(std::string_view label);

}  // namespace rehearse
