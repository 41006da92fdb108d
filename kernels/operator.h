#pragma once
#include <cstdint>
#include <string>

#include "plan/plan.h"

namespace rehearse {

/// What an operator is in a transformer; its name in timelines and tables.
enum class OperatorName : std::uint8_t {
  Embedding,
  Norm,
  Qkv,
  Rope,
  Attention,
  AttentionOutput,
  ResidualAdd,
  FfnUp,
  FfnActivation,
  FfnDown,
  FinalNorm,
  Head,
  CrossEntropy,
  GradientAccumulate,
  GradientNorm,
  Adam,
  Cast,
  Router,
  TokenPermute,  ///< tokens copied to the rows of their experts, and summed back
  ExpertUp,
  ExpertActivation,
  ExpertDown,
  LatentDown,
  QueryUp,
  KeyValueUp,
  MtpProjection,  ///< stream and next token's embedding side by side, down to hidden
};
inline constexpr int kOperatorNameCount = static_cast<int>(OperatorName::MtpProjection) + 1;
const char* operator_name(OperatorName name);

enum class Pass : std::uint8_t { Forward, InputGradient, WeightGradient, Update };
const char* pass_name(Pass pass);

/// How an operator is priced.
enum class OperatorFamily : std::uint8_t { Gemm, Attention, Memory };

/// One kernel-sized piece of work on one GPU, with its shape. FLOPs and bytes are derived from
/// the shape where the operator is made (kernels/layer.cpp) and kept, so that pricing is cheap.
struct Operator {
  OperatorName name = OperatorName::Qkv;
  Pass pass = Pass::Forward;
  OperatorFamily family = OperatorFamily::Gemm;
  Precision precision = Precision::Bf16;
  bool recomputed = false;  ///< a forward repeated inside the backward
  /// Gemm: out[m,n] = in[m,k] · in[k,n], `batch` times; accumulate: fp32 result added to what is
  /// there.
  std::int64_t m = 0, n = 0, k = 0;
  bool accumulate_fp32 = false;
  bool block_scaled = false;  ///< fp8 with a scale for 1×128 and 128×128 elements
  /// Attention: sequences, query length, key length, heads, key/value heads, head size.
  std::int64_t batch = 0, query_len = 0, key_len = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = false;
  /// Of the pairs of a query and a key that are left by causality, those that are left by borders
  /// of documents and a sliding window too.
  double pair_share = 1;
  double flops = 0;  ///< multiply-add = 2; causal attention counts the half it computes
  double bytes = 0;  ///< least traffic with device memory
};

Operator gemm(OperatorName name, Pass pass, Precision precision, std::int64_t m, std::int64_t n,
              std::int64_t k, bool accumulate_fp32 = false);
/// `batch` independent products of the same shape in one kernel.
Operator batched_gemm(OperatorName name, Pass pass, Precision precision, std::int64_t batch,
                      std::int64_t m, std::int64_t n, std::int64_t k);
/// The products of a rank's experts, of `m` rows each on average (`k` rows of a weight gradient,
/// added in fp32), in one grouped kernel.
Operator expert_gemm(Pass pass, Precision precision, std::int64_t experts, std::int64_t m,
                     std::int64_t n, std::int64_t k, bool accumulate_fp32 = false);
/// Whether an operator is a product of experts, which other kernels compute than cuBLAS's.
inline bool is_expert_gemm(const Operator& op) {
  return op.family == OperatorFamily::Gemm &&
         (op.name == OperatorName::ExpertUp || op.name == OperatorName::ExpertDown);
}
Operator memory_operator(OperatorName name, Pass pass, double bytes, double flops = 0);
Operator attention(Pass pass, Precision precision, std::int64_t batch, std::int64_t query_len,
                   std::int64_t key_len, std::int64_t heads, std::int64_t kv_heads,
                   std::int64_t head_dim, bool causal);

}  // namespace rehearse
