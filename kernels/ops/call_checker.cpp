#include "kernels/ops/call_checker.h"

#include <algorithm>
#include <cstdint>

namespace rehearse {
namespace {

std::string named(const char* tensor) { return std::string("tensor \"") + tensor + "\""; }

std::string described(const ConstTensorView& tensor) {
  return std::string(dtype_name(tensor.dtype)) + " " + tensor.shape.text();
}

std::string sizes_text(std::initializer_list<std::int64_t> sizes) {
  return TensorShape(sizes).text();
}

std::string dtypes_text(std::initializer_list<DType> dtypes) {
  std::string text;
  for (const DType one : dtypes)
    text += (text.empty() ? "" : " or ") + std::string(dtype_name(one));
  return text;
}

}  // namespace

void CallChecker::fail(const std::string& sentence) const {
  throw OperatorError(std::string(operator_name_) + ": " + sentence);
}

void CallChecker::rank(const char* name, const ConstTensorView& tensor, int rank) const {
  if (!tensor.given()) fail(named(name) + " is missing");
  if (tensor.shape.rank != rank)
    fail(named(name) + " is " + described(tensor) + ", but needs " + std::to_string(rank) +
         " dimensions");
  for (int i = 0; i < rank; ++i)
    if (tensor.size(i) < 0) fail(named(name) + " has a negative size");
}

void CallChecker::memory(const char* name, const ConstTensorView& tensor) const {
  if (tensor.elements() == 0) return;
  if (tensor.data == nullptr) fail(named(name) + " has no memory");
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (address % element_bytes(tensor.dtype) != 0)
    fail("the memory of " + named(name) + " is not aligned to its " + dtype_name(tensor.dtype) +
         " elements");
}

void CallChecker::strided(const char* name, const ConstTensorView& tensor,
                          std::initializer_list<std::int64_t> sizes,
                          std::initializer_list<DType> dtypes) const {
  rank(name, tensor, static_cast<int>(sizes.size()));
  if (!std::equal(sizes.begin(), sizes.end(), tensor.shape.size.begin()))
    fail(named(name) + " is " + described(tensor) + ", but should be " + sizes_text(sizes));
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) == dtypes.end())
    fail(named(name) + " is " + described(tensor) + ", but should be of " + dtypes_text(dtypes));
  if (tensor.size(0) > 1 && tensor.shape.stride < tensor.shape.row_elements())
    fail("rows of " + named(name) + " overlap");
  memory(name, tensor);
}

void CallChecker::tensor(const char* name, const ConstTensorView& tensor,
                         std::initializer_list<std::int64_t> sizes,
                         std::initializer_list<DType> dtypes) const {
  strided(name, tensor, sizes, dtypes);
  if (!tensor.shape.contiguous()) fail(named(name) + " is not contiguous, and has to be");
}

std::initializer_list<DType> statistics_dtype(DType activation) {
  static constexpr auto kFp32 = {DType::F32};
  static constexpr auto kFp64 = {DType::F64};
  return activation == DType::F64 ? kFp64 : kFp32;
}

void check(const OperatorCall& call) {
  std::visit([](const auto& one) { check_call(one); }, call);
}

const char* call_name(const OperatorCall& call) {
  // In the order of the variant.
  static constexpr const char* kNames[] = {
      "gemm",
      "grouped_gemm",
      "column_sum",
      "attention_forward",
      "attention_backward",
      "attention_join",
      "paged_append",
      "paged_attention",
      "rope",
      "norm_forward",
      "norm_backward",
      "activation_forward",
      "activation_backward",
      "add",
      "dropout_forward",
      "dropout_backward",
      "cast",
      "scale",
      "embedding_forward",
      "embedding_backward",
      "cross_entropy_forward",
      "cross_entropy_rescale",
      "cross_entropy_backward",
      "adam_update",
      "squared_sum",
      "clip_factor",
      "bucket_copy",
      "bucket_reduce",
      "router_forward",
      "router_backward",
      "moe_sort",
      "moe_permute",
      "moe_combine",
      "moe_weight_gradient",
  };
  static_assert(std::size(kNames) == std::variant_size_v<OperatorCall>);
  return kNames[call.index()];
}

}  // namespace rehearse
