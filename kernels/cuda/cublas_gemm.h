#pragma once
#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "kernels/cuda/launch_context.h"
#include "kernels/ops/operator_call.h"

namespace rehearse {

/// What cuBLASLt chose for a product: enough to tell two choices apart in a profile.
struct GemmChoice {
  static constexpr int kNotReported = -1;  ///< an attribute that the algorithm does not have
  int algorithm = 0, tile = 0, stages = 0, split_k = 0;
  float waves = 0;
};

/// Matrix products through cuBLASLt, with the heuristic's first choice for each shape kept.
/// Workspace: 32 MiB from compute capability 9.0 on, 4 MiB before (NVIDIA's recommendation in the
/// cuBLAS documentation, section "cublasSetWorkspace"). fp32 is computed in fp32, not in TF32.
class CublasGemm {
 public:
  CublasGemm(int compute_capability_major, int compute_capability_minor);
  ~CublasGemm();
  CublasGemm(const CublasGemm&) = delete;
  CublasGemm& operator=(const CublasGemm&) = delete;

  void run(const Gemm& call, LaunchContext& context);
  /// The choice made for a call like this one; asks the heuristic where there was none yet.
  GemmChoice choice(const Gemm& call);
  std::string version() const;
  std::size_t workspace_bytes() const { return workspace_bytes_; }

 private:
  struct Plan;
  using Key = std::array<std::int64_t, 20>;  // in place: looking a shape up takes no memory
  Plan& plan_of(const Gemm& call);

  cublasLtHandle_t handle_ = nullptr;
  bool has_fp8_ = false;
  std::size_t workspace_bytes_ = 0;
  void* workspace_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace rehearse
