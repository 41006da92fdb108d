// cuBLASLt as its documentation shows it, without anything of ours between (cuBLAS documentation,
// "Using the cuBLASLt API"): descriptors, the heuristic's first choice, one call. What the path
// through operators costs is the difference to this.
#include <algorithm>
#include <array>
#include <map>
#include <memory>

#include "kernels/cuda/cuda_device.h"
#include "kernels/profiler/product_race.h"

namespace rehearse {
namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;

/// One shape and layout of a product.
class BareProduct {
 public:
  /// cuBLASLt counts columns first: with rows first, outᵀ = op(b)ᵀ · op(a)ᵀ.
  BareProduct(cublasLtHandle_t handle, const Gemm& call) : accumulate_(call.accumulate) {
    check_cublas(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t of_b = call.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t of_a = call.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_cublas(
        cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &of_b, sizeof of_b));
    check_cublas(
        cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSB, &of_a, sizeof of_a));
    const ConstTensorView tensors[] = {call.b, call.a, call.out};
    for (std::size_t i = 0; i < layouts_.size(); ++i) layouts_[i] = layout_of(tensors[i]);
    cublasLtMatmulPreference_t preference = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&preference));
    check_cublas(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, product_, layouts_[0], layouts_[1], layouts_[2],
                                       layouts_[2], preference, 1, &found_, &count);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    check_cublas(status);
    check_cublas(count > 0 ? found_.state : CUBLAS_STATUS_NOT_SUPPORTED);
  }
  ~BareProduct() {
    for (const cublasLtMatrixLayout_t layout : layouts_) (void)cublasLtMatrixLayoutDestroy(layout);
    (void)cublasLtMatmulDescDestroy(product_);
  }
  BareProduct(const BareProduct&) = delete;
  BareProduct& operator=(const BareProduct&) = delete;

  void run(cublasLtHandle_t handle, const Gemm& call, void* workspace, cudaStream_t stream) const {
    const float alpha = 1, beta = accumulate_ ? 1.0f : 0.0f;
    check_cublas(cublasLtMatmul(handle, product_, &alpha, call.b.data, layouts_[0], call.a.data,
                                layouts_[1], &beta, call.out.data, layouts_[2], call.out.data,
                                layouts_[2], &found_.algo, workspace, kWorkspace, stream));
  }

 private:
  static cublasLtMatrixLayout_t layout_of(const ConstTensorView& tensor) {
    cublasLtMatrixLayout_t layout = nullptr;
    const cudaDataType_t type = tensor.dtype == DType::F32 ? CUDA_R_32F : CUDA_R_16BF;
    check_cublas(
        cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(tensor.size(1)),
                                   static_cast<std::uint64_t>(tensor.size(0)), tensor.size(1)));
    return layout;
  }
  bool accumulate_;
  cublasLtMatmulDesc_t product_ = nullptr;
  std::array<cublasLtMatrixLayout_t, 3> layouts_{};
  cublasLtMatmulHeuristicResult_t found_{};
};

class BareLibrary {
 public:
  BareLibrary() : workspace_(kWorkspace) { check_cublas(cublasLtCreate(&handle_)); }
  ~BareLibrary() { (void)cublasLtDestroy(handle_); }
  BareLibrary(const BareLibrary&) = delete;
  BareLibrary& operator=(const BareLibrary&) = delete;
  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_.data(); }

 private:
  cublasLtHandle_t handle_ = nullptr;
  CudaBuffer workspace_;
};

/// Calls of one shape as a graph, as the profiler records ours.
class BareGraph final : public TimedBatch {
 public:
  BareGraph(CudaDevice& device, std::shared_ptr<const BareLibrary> library,
            const std::vector<OperatorCall>& calls)
      : device_(device),
        library_(std::move(library)),
        product_(library_->handle(), std::get<Gemm>(calls.front())) {
    const auto run = [&](const OperatorCall& call) {
      product_.run(library_->handle(), std::get<Gemm>(call), library_->workspace(),
                   device_.stream());
    };
    run(calls.front());
    device_.synchronize();
    graph_ = std::make_unique<CudaGraph>(device_.stream(), [&] {
      for (const OperatorCall& call : calls) run(call);
    });
  }
  double run_s() override {
    start_.record(device_.stream());
    graph_->launch(device_.stream());
    end_.record(device_.stream());
    end_.wait();
    return end_.seconds_since(start_);
  }

 private:
  CudaDevice& device_;
  std::shared_ptr<const BareLibrary> library_;
  BareProduct product_;
  std::unique_ptr<CudaGraph> graph_;
  CudaEvent start_, end_;
};

}  // namespace

BareBatch bare_cublas(ProfiledDevice& device) {
  auto& gpu = dynamic_cast<CudaDevice&>(*device.device);
  auto library = std::make_shared<const BareLibrary>();
  return [&gpu, library](const std::vector<OperatorCall>& calls) -> std::unique_ptr<TimedBatch> {
    return std::make_unique<BareGraph>(gpu, library, calls);
  };
}

}  // namespace rehearse
