#pragma once
#include <initializer_list>
#include <string>
#include <type_traits>

#include "kernels/ops/operator_call.h"

namespace rehearse {

/// States what a call's tensors must be; throws OperatorError with the operator's and the tensor's
/// name where they are not. Every call of an operator is checked before it is launched, so that a
/// message is put together only where it is thrown.
class CallChecker {
 public:
  explicit CallChecker(const char* operator_name) : operator_name_(operator_name) {}

  /// `tensor` is given, of these sizes and one of these types, contiguous and aligned.
  void tensor(const char* name, const ConstTensorView& tensor,
              std::initializer_list<std::int64_t> sizes, std::initializer_list<DType> dtypes) const;
  /// As above, but entries of the outermost dimension may lie apart.
  void strided(const char* name, const ConstTensorView& tensor,
               std::initializer_list<std::int64_t> sizes,
               std::initializer_list<DType> dtypes) const;
  /// `tensor` is given and has this many dimensions: asked before its sizes are used.
  void rank(const char* name, const ConstTensorView& tensor, int rank) const;
  void require(bool condition, const char* sentence) const {
    if (!condition) fail(sentence);
  }
  /// For sentences with numbers or names in them: `sentence()` makes a std::string.
  template <typename Sentence>
  requires std::is_invocable_r_v<std::string, Sentence>
  void require(bool condition, const Sentence& sentence) const {
    if (!condition) fail(sentence());
  }

 private:
  void memory(const char* name, const ConstTensorView& tensor) const;
  [[noreturn]] void fail(const std::string& sentence) const;

  const char* operator_name_;
};

/// Statistics of rows and gradients of parameters are fp32; beside fp64 activations, fp64.
std::initializer_list<DType> statistics_dtype(DType activation);

void check_call(const Gemm& call);
void check_call(const GroupedGemm& call);
void check_call(const ColumnSum& call);
void check_call(const AttentionForward& call);
void check_call(const AttentionBackward& call);
void check_call(const AttentionJoin& call);
void check_call(const PagedAppend& call);
void check_call(const PagedAttention& call);
void check_call(const Rope& call);
void check_call(const NormForward& call);
void check_call(const NormBackward& call);
void check_call(const ActivationForward& call);
void check_call(const ActivationBackward& call);
void check_call(const Add& call);
void check_call(const DropoutForward& call);
void check_call(const DropoutBackward& call);
void check_call(const Cast& call);
void check_call(const Scale& call);
void check_call(const EmbeddingForward& call);
void check_call(const EmbeddingBackward& call);
void check_call(const CrossEntropyForward& call);
void check_call(const CrossEntropyRescale& call);
void check_call(const CrossEntropyBackward& call);
void check_call(const AdamUpdate& call);
void check_call(const SquaredSum& call);
void check_call(const ClipFactor& call);
void check_call(const BucketCopy& call);
void check_call(const BucketReduce& call);
void check_call(const RouterForward& call);
void check_call(const RouterBackward& call);
void check_call(const MoeSort& call);
void check_call(const MoePermute& call);
void check_call(const MoeCombine& call);
void check_call(const MoeWeightGradient& call);

}  // namespace rehearse
