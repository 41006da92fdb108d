#include "kernels/cuda/cublas_gemm.h"

#include <algorithm>
#include <bit>

#include "kernels/cuda/cuda_errors.h"
#include "kernels/cuda/epilogue.h"

namespace rehearse {
namespace {

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return CUDA_R_32F;
    case DType::Bf16:
      return CUDA_R_16BF;
    case DType::F8E4m3:
      return CUDA_R_8F_E4M3;
    default:
      throw OperatorError(std::string("gemm: the device multiplies fp32, bf16 and fp8, not ") +
                          dtype_name(dtype));
  }
}

/// The largest power of two, up to 256, that divides an address: cuBLASLt's promise of alignment.
std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return address == 0 ? 256u
                      : static_cast<std::uint32_t>(std::min<std::uintptr_t>(
                            256, std::uintptr_t{1} << std::countr_zero(address)));
}

/// What holds for every matrix of a batch.
std::uint32_t alignment_of(const ConstTensorView& tensor) {
  const std::uint32_t first = alignment_of(tensor.data);
  if (tensor.shape.rank == 2 || tensor.size(0) <= 1) return first;
  const auto step = static_cast<std::uint64_t>(tensor.shape.stride) * element_bytes(tensor.dtype);
  return step == 0 ? first
                   : static_cast<std::uint32_t>(std::min<std::uint64_t>(
                         first, std::uint64_t{1} << std::countr_zero(step)));
}

/// Rows, columns and the distance of rows of one matrix, which in a rank-3 tensor is contiguous.
struct MatrixShape {
  std::int64_t rows, columns, leading, batch_stride, batches;
};
MatrixShape matrix_shape(const ConstTensorView& tensor) {
  if (tensor.shape.rank == 2) {
    // One row may have any stride; cuBLASLt wants at least the row's length.
    return {tensor.size(0), tensor.size(1), std::max(tensor.shape.stride, tensor.size(1)), 0, 1};
  }
  return {tensor.size(1), tensor.size(2), tensor.size(2), tensor.shape.stride, tensor.size(0)};
}

class Layout {
 public:
  /// cuBLASLt counts columns first: our row-major (rows, columns) is its (columns, rows).
  explicit Layout(const ConstTensorView& tensor) {
    const MatrixShape shape = matrix_shape(tensor);
    check_cublas(cublasLtMatrixLayoutCreate(&layout_, data_type(tensor.dtype),
                                            static_cast<std::uint64_t>(shape.columns),
                                            static_cast<std::uint64_t>(shape.rows), shape.leading));
    if (shape.batches == 1) return;
    const auto count = static_cast<std::int32_t>(shape.batches);
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count);
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, shape.batch_stride);
  }
  ~Layout() { (void)cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  template <typename Value>
  void set(cublasLtMatrixLayoutAttribute_t attribute, const Value& value) {
    check_cublas(cublasLtMatrixLayoutSetAttribute(layout_, attribute, &value, sizeof value));
  }
  cublasLtMatrixLayout_t layout_ = nullptr;
};

class Description {
 public:
  Description() { check_cublas(cublasLtMatmulDescCreate(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F)); }
  ~Description() { (void)cublasLtMatmulDescDestroy(desc_); }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;
  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check_cublas(cublasLtMatmulDescSetAttribute(desc_, attribute, &value, sizeof value));
  }
  cublasLtMatmulDesc_t get() const { return desc_; }

 private:
  cublasLtMatmulDesc_t desc_ = nullptr;
};

class Preference {
 public:
  Preference() { check_cublas(cublasLtMatmulPreferenceCreate(&preference_)); }
  ~Preference() { (void)cublasLtMatmulPreferenceDestroy(preference_); }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
  template <typename Value>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, const Value& value) {
    check_cublas(
        cublasLtMatmulPreferenceSetAttribute(preference_, attribute, &value, sizeof value));
  }
  cublasLtMatmulPreference_t get() const { return preference_; }

 private:
  cublasLtMatmulPreference_t preference_ = nullptr;
};

cublasLtEpilogue_t epilogue_of(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::None:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::Bias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::BiasGelu:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case Epilogue::GeluGradient:
      return CUBLASLT_EPILOGUE_DGELU;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

}  // namespace

/// Everything that does not change between two calls of one shape. Pointers of epilogues and
/// scales are set anew each time.
struct CublasGemm::Plan {
  Layout first, second, out;  // cuBLASLt's A is our b, its B our a: outᵀ = op(b)ᵀ·op(a)ᵀ
  Description description;
  cublasLtMatmulHeuristicResult_t found{};
  bool offered = false;  ///< without: the product and its epilogue take a kernel each

  explicit Plan(const Gemm& call) : first(call.b), second(call.a), out(call.out) {
    const cublasOperation_t of_b = call.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t of_a = call.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    description.set(CUBLASLT_MATMUL_DESC_TRANSA, of_b);
    description.set(CUBLASLT_MATMUL_DESC_TRANSB, of_a);
    description.set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(call.epilogue));
    set_pointers(call);
  }

  void set_pointers(const Gemm& call) {
    if (call.bias.given()) {
      description.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias.data);
      description.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                      static_cast<std::int32_t>(data_type(call.bias.dtype)));
    }
    if (call.pre_activation.given()) {
      const std::int64_t leading = call.pre_activation.shape.stride;
      description.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, call.pre_activation.data);
      description.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, leading);
    }
    if (call.a_scale.given()) {
      description.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, call.b_scale.data);
      description.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, call.a_scale.data);
    }
  }
};

CublasGemm::CublasGemm(int major, int minor)
    : has_fp8_(major > 8 || (major == 8 && minor >= 9)),
      workspace_bytes_((major >= 9 ? 32u : 4u) << 20) {
  check_cublas(cublasLtCreate(&handle_));
  check_cuda(cudaMalloc(&workspace_, workspace_bytes_));
}

CublasGemm::~CublasGemm() {
  plans_.clear();
  report_cuda(cudaFree(workspace_));
  (void)cublasLtDestroy(handle_);
}

std::string CublasGemm::version() const { return std::to_string(cublasLtGetVersion()); }

CublasGemm::Plan& CublasGemm::plan_of(const Gemm& call) {
  if (call.a.dtype == DType::F8E4m3 && !has_fp8_)
    throw OperatorError("gemm: fp8 needs compute capability 8.9 or newer");
  const MatrixShape a = matrix_shape(call.a), b = matrix_shape(call.b),
                    out = matrix_shape(call.out);
  const std::uint32_t align[] = {alignment_of(call.b), alignment_of(call.a),
                                 alignment_of(call.out)};
  const Key key{out.batches,
                out.rows,
                out.columns,
                call.transpose_a ? a.rows : a.columns,
                a.leading,
                b.leading,
                out.leading,
                a.batch_stride,
                b.batch_stride,
                out.batch_stride,
                call.transpose_a,
                call.transpose_b,
                call.accumulate,
                static_cast<int>(call.epilogue),
                static_cast<int>(call.a.dtype),
                static_cast<int>(call.out.dtype),
                static_cast<int>(call.bias.dtype),
                align[0],
                align[1],
                align[2]};
  if (const auto known = plans_.find(key); known != plans_.end()) return *known->second;
  auto plan = std::make_unique<Plan>(call);
  Preference preference;
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes_);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align[0]);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align[1]);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align[2]);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align[2]);
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan->description.get(), plan->first.get(), plan->second.get(), plan->out.get(),
      plan->out.get(), preference.get(), 1, &plan->found, &count);
  plan->offered =
      status == CUBLAS_STATUS_SUCCESS && count > 0 && plan->found.state == CUBLAS_STATUS_SUCCESS;
  // Whatever cuBLASLt has against an epilogue, the bare product is asked for next; without one
  // there is nothing to leave away.
  if (call.epilogue == Epilogue::None && status != CUBLAS_STATUS_NOT_SUPPORTED)
    check_cublas(status);
  if (!plan->offered && call.epilogue == Epilogue::None)
    throw OperatorError("gemm: cuBLASLt offers nothing for " + call.a.shape.text() + " · " +
                        call.b.shape.text() + " in " + dtype_name(call.a.dtype));
  return *plans_.emplace(key, std::move(plan)).first->second;
}

GemmChoice CublasGemm::choice(const Gemm& call) {
  const cublasLtMatmulHeuristicResult_t& found = plan_of(call).found;
  GemmChoice choice;
  choice.waves = found.wavesCount;
  const auto read = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, int& value) {
    std::size_t written = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoConfigGetAttribute(
        &found.algo, attribute, &value, sizeof value, &written);
    if (status != CUBLAS_STATUS_SUCCESS) value = GemmChoice::kNotReported;
  };
  read(CUBLASLT_ALGO_CONFIG_ID, choice.algorithm);
  read(CUBLASLT_ALGO_CONFIG_TILE_ID, choice.tile);
  read(CUBLASLT_ALGO_CONFIG_STAGES_ID, choice.stages);
  read(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, choice.split_k);
  return choice;
}

namespace {

/// Activations as operators of their own, where cuBLASLt's epilogues do not take the call: it asks
/// the saved tensor for rows of a multiple of 8 elements that start at 16 bytes, a bias of the
/// result's type (its kernels read it in 16-byte pieces), and offers GeLU in 16 bits only.
bool epilogue_fits(const Gemm& call) {
  if (call.epilogue == Epilogue::None) return true;
  if (call.bias.given() && (call.bias.dtype != call.out.dtype || alignment_of(call.bias.data) < 16))
    return false;
  if (!call.pre_activation.given()) return true;
  return call.out.dtype == DType::Bf16 && call.pre_activation.shape.stride % 8 == 0 &&
         alignment_of(call.pre_activation.data) >= 16;
}

/// The sum over nothing is zero; an epilogue still sees it.
void clear_empty_sum(const Gemm& call, LaunchContext& context) {
  if (!call.accumulate) {
    const TensorView flat =
        call.out.shape.rank == 2
            ? call.out
            : reshaped(call.out, {call.out.size(0) * call.out.size(1), call.out.size(2)});
    clear_matrix(flat, context);
  }
  if (call.epilogue != Epilogue::None) apply_epilogue(call, context);
}

}  // namespace

void CublasGemm::run(const Gemm& call, LaunchContext& context) {
  const MatrixShape out = matrix_shape(call.out);
  const std::int64_t depth =
      matrix_shape(call.a).*(call.transpose_a ? &MatrixShape::rows : &MatrixShape::columns);
  if (out.rows == 0 || out.columns == 0 || out.batches == 0) return;
  if (depth == 0) return clear_empty_sum(call, context);
  Plan* const plan = epilogue_fits(call) ? &plan_of(call) : nullptr;
  if (plan == nullptr || !plan->offered) {
    Gemm bare = call;
    bare.epilogue = Epilogue::None;
    bare.bias = {};
    bare.pre_activation = {};
    run(bare, context);
    return apply_epilogue(call, context);
  }
  plan->set_pointers(call);
  const float alpha = 1.0f, beta = call.accumulate ? 1.0f : 0.0f;
  check_cublas(cublasLtMatmul(
      handle_, plan->description.get(), &alpha, call.b.data, plan->first.get(), call.a.data,
      plan->second.get(), &beta, call.out.data, plan->out.get(), call.out.data, plan->out.get(),
      &plan->found.algo, workspace_, workspace_bytes_, static_cast<cudaStream_t>(context.stream)));
}

}  // namespace rehearse
