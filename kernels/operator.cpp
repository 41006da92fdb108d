#include "kernels/operator.h"

#include "plan/ensure.h"

namespace rehearse {

const char* operator_name(OperatorName name) {
  switch (name) {
    case OperatorName::Embedding:
      return "embedding";
    case OperatorName::Norm:
      return "norm";
    case OperatorName::Qkv:
      return "qkv";
    case OperatorName::Rope:
      return "rope";
    case OperatorName::Attention:
      return "attention";
    case OperatorName::AttentionOutput:
      return "attention_output";
    case OperatorName::ResidualAdd:
      return "residual_add";
    case OperatorName::FfnUp:
      return "ffn_up";
    case OperatorName::FfnActivation:
      return "ffn_activation";
    case OperatorName::FfnDown:
      return "ffn_down";
    case OperatorName::FinalNorm:
      return "final_norm";
    case OperatorName::Head:
      return "head";
    case OperatorName::CrossEntropy:
      return "cross_entropy";
    case OperatorName::GradientAccumulate:
      return "gradient_accumulate";
    case OperatorName::GradientNorm:
      return "gradient_norm";
    case OperatorName::Adam:
      return "adam";
    case OperatorName::Cast:
      return "cast";
    case OperatorName::Router:
      return "router";
    case OperatorName::TokenPermute:
      return "token_permute";
    case OperatorName::ExpertUp:
      return "expert_up";
    case OperatorName::ExpertActivation:
      return "expert_activation";
    case OperatorName::ExpertDown:
      return "expert_down";
    case OperatorName::LatentDown:
      return "latent_down";
    case OperatorName::QueryUp:
      return "query_up";
    case OperatorName::KeyValueUp:
      return "key_value_up";
    case OperatorName::MtpProjection:
      return "mtp_projection";
  }
  ensure(false, "every operator has a name");
  return "";
}

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::Forward:
      return "forward";
    case Pass::InputGradient:
      return "input_gradient";
    case Pass::WeightGradient:
      return "weight_gradient";
    case Pass::Update:
      return "update";
  }
  ensure(false, "every pass has a name");
  return "";
}

Operator gemm(OperatorName name, Pass pass, Precision precision, std::int64_t m, std::int64_t n,
              std::int64_t k, bool accumulate_fp32) {
  const auto rows = static_cast<double>(m), columns = static_cast<double>(n),
             depth = static_cast<double>(k);
  // fp8 products write bf16. An fp32 accumulation reads and writes four bytes an element.
  const double element = bytes_of(precision);
  const double written = precision == Precision::Fp8 ? bytes_of(Precision::Bf16) : element;
  Operator op;
  op.name = name;
  op.pass = pass;
  op.family = OperatorFamily::Gemm;
  op.precision = precision;
  op.m = m;
  op.n = n;
  op.k = k;
  op.batch = 1;
  op.accumulate_fp32 = accumulate_fp32;
  op.flops = 2 * rows * columns * depth;
  op.bytes =
      element * (rows * depth + depth * columns) + (accumulate_fp32 ? 8 : written) * rows * columns;
  return op;
}

Operator batched_gemm(OperatorName name, Pass pass, Precision precision, std::int64_t batch,
                      std::int64_t m, std::int64_t n, std::int64_t k) {
  Operator op = gemm(name, pass, precision, m, n, k);
  op.batch = batch;
  op.flops *= static_cast<double>(batch);
  op.bytes *= static_cast<double>(batch);
  return op;
}

Operator expert_gemm(Pass pass, Precision precision, std::int64_t experts, std::int64_t m,
                     std::int64_t n, std::int64_t k, bool accumulate_fp32) {
  Operator op = gemm(OperatorName::ExpertUp, pass, precision, m, n, k, accumulate_fp32);
  op.batch = experts;
  op.flops *= static_cast<double>(experts);
  op.bytes *= static_cast<double>(experts);
  return op;
}

Operator memory_operator(OperatorName name, Pass pass, double bytes, double flops) {
  Operator op;
  op.name = name;
  op.pass = pass;
  op.family = OperatorFamily::Memory;
  op.bytes = bytes;
  op.flops = flops;
  return op;
}

Operator attention(Pass pass, Precision precision, std::int64_t batch, std::int64_t query_len,
                   std::int64_t key_len, std::int64_t heads, std::int64_t kv_heads,
                   std::int64_t head_dim, bool causal) {
  Operator op;
  op.name = OperatorName::Attention;
  op.pass = pass;
  op.family = OperatorFamily::Attention;
  op.precision = precision;
  op.batch = batch;
  op.query_len = query_len;
  op.key_len = key_len;
  op.heads = heads;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
  op.causal = causal;

  const auto sequences = static_cast<double>(batch), queries = static_cast<double>(query_len),
             keys = static_cast<double>(key_len), size = static_cast<double>(head_dim);
  const double query_elements = sequences * queries * static_cast<double>(heads) * size;
  const double kv_elements = sequences * keys * static_cast<double>(kv_heads) * size;
  const double row_statistics = 4 * sequences * queries * static_cast<double>(heads);
  const double element = bytes_of(precision);
  const double forward_flops = 4 * query_elements * keys * (causal ? 0.5 : 1);
  if (pass == Pass::Forward) {
    op.flops = forward_flops;
    op.bytes = element * (2 * query_elements + 2 * kv_elements) + row_statistics;
  } else {
    // Five products instead of two. Reads q, k, v, o, do and writes dq, dk, dv; dq is summed in
    // fp32 over the key blocks (read and written once at least).
    op.flops = 2.5 * forward_flops;
    op.bytes =
        element * (4 * query_elements + 4 * kv_elements) + 8 * query_elements + row_statistics;
  }
  return op;
}

}  // namespace rehearse
