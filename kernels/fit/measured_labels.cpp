#include "kernels/fit/measured_labels.h"

#include <string>
#include <utility>

namespace rehearse {
namespace {

constexpr std::pair<const char*, MeasuredLabel> kLabels[] = {
    // Of the same traffic as the kernel that their name is fitted to, but other kernels.
    {"layer_norm", {.priced_as = OperatorName::Norm, .apart = true}},
    {"gelu", {.priced_as = OperatorName::FfnActivation, .apart = true}},
    {"dropout", {.priced_as = OperatorName::ResidualAdd, .apart = true}},
    // Tokens to their experts' rows is "token_permute"; this is their way back.
    {"moe_combine", {.priced_as = OperatorName::TokenPermute}},
    {"attention_join", {.priced_as = OperatorName::Attention}},
    // The gradient of a bias, which a step counts with the product it belongs to.
    {"column_sum", {.priced_as = OperatorName::Qkv}},
    // Parts of a step that it does not list, fused ones that it lists as several, and decoding.
    {"attention_varlen", {}},
    {"bucket_copy", {}},
    {"bucket_reduce", {}},
    {"cast_from_fp8", {}},
    {"clip_factor", {}},
    {"cross_entropy_rescale", {}},
    {"gemm_bias", {}},
    {"gemm_bias_gelu", {}},
    {"gemm_gelu_gradient", {}},
    {"moe_sort", {}},
    {"moe_weight_gradient", {}},
    {"norm_residual", {}},
    {"paged_append", {}},
    {"paged_attention", {}},
    {"scale", {}},
};

}  // namespace

std::optional<MeasuredLabel> measured_label(std::string_view label) {
  for (const auto& [known, meaning] : kLabels)
    if (label == known) return meaning;
  for (int i = 0; i < kOperatorNameCount; ++i)
    if (label == operator_name(static_cast<OperatorName>(i)))
      return MeasuredLabel{.priced_as = static_cast<OperatorName>(i)};
  return std::nullopt;
}

}  // namespace rehearse
