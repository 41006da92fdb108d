#pragma once
#include <cstdint>
#include <vector>

namespace rehearse {

/// A linear layer as one tensor rank computes it: outputs and inputs.
struct LinearShape {
  std::int64_t outputs = 0, inputs = 0;
  bool operator==(const LinearShape&) const = default;
};

/// The linear layers of every model of the catalogue, and their heads, whole and cut over 2, 4 and
/// 8 tensor ranks as far as these divide them: each shape once, whole models first, in the
/// catalogue's order. Experts' layers are left out, since other kernels compute them.
const std::vector<LinearShape>& model_linear_shapes();

/// Experts of one layer as one rank has them.
struct ExpertShape {
  std::int64_t experts = 0, outputs = 0, inputs = 0;
  double rows_a_token =
      0;  ///< of one expert, for each token of a rank: active / count, times ranks
  bool operator==(const ExpertShape&) const = default;
};
/// Those of the catalogue's mixtures, over 1 and 8 ranks.
const std::vector<ExpertShape>& model_expert_shapes();

}  // namespace rehearse
