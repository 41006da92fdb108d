#pragma once
#include <stdexcept>
#include <string>
#include <variant>

#include "kernels/ops/attention_calls.h"
#include "kernels/ops/matrix_calls.h"
#include "kernels/ops/moe_calls.h"
#include "kernels/ops/optimizer_calls.h"
#include "kernels/ops/pointwise_calls.h"
#include "kernels/ops/vocabulary_calls.h"

namespace rehearse {

/// Everything a device can be asked to compute. A new operator is a struct, its checks, and one
/// function a device; whoever records, times or checks calls does it in one place.
using OperatorCall =
    std::variant<Gemm, GroupedGemm, ColumnSum, AttentionForward, AttentionBackward, AttentionJoin,
                 PagedAppend, PagedAttention, Rope, NormForward, NormBackward, ActivationForward,
                 ActivationBackward, Add, DropoutForward, DropoutBackward, Cast, Scale,
                 EmbeddingForward, EmbeddingBackward, CrossEntropyForward, CrossEntropyRescale,
                 CrossEntropyBackward, AdamUpdate, SquaredSum, ClipFactor, BucketCopy, BucketReduce,
                 RouterForward, RouterBackward, MoeSort, MoePermute, MoeCombine, MoeWeightGradient>;

/// "gemm", "attention_forward", …: the names of profiles and timelines.
const char* call_name(const OperatorCall& call);

/// A call whose tensors do not fit together, or that a device does not offer. The message names
/// the operator, the tensor, what it is and what it should be.
class OperatorError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// Throws OperatorError where shapes, dtypes, strides or alignment are wrong. Values (offsets,
/// token ids) are not looked at: they may lie on a device.
void check(const OperatorCall& call);

}  // namespace rehearse
