#pragma once
#include <cstddef>
#include <source_location>

#include "kernels/ops/operator_call.h"

namespace rehearse {

/// What a launcher needs to know of its device. Kept free of CUDA's headers, so that launchers
/// compile for the emulated device too.
class LaunchContext {
 public:
  virtual ~LaunchContext() = default;

  void* stream = nullptr;  ///< a cudaStream_t
  int multiprocessors = 1;
  std::size_t max_shared_bytes = 48 * 1024;  ///< a block may ask for

  /// Scratch memory on the device, valid until the next call; its contents are undefined.
  virtual void* workspace(std::size_t bytes) = 0;
  /// Raises a kernel's limit of shared memory where it needs more than the default 48 KiB.
  virtual void allow_shared_memory(const void* kernel, std::size_t bytes) = 0;
  /// Throws where the launch just made failed.
  virtual void check_launch(
      const std::source_location& where = std::source_location::current()) = 0;
};

// The operators as CUDA kernels. REQUIRES: the call was checked. What the kernels do not offer
// (fp64, unusual sizes) throws OperatorError.
void compute(const GroupedGemm& call, LaunchContext& context);
void compute(const ColumnSum& call, LaunchContext& context);
void compute(const AttentionForward& call, LaunchContext& context);
void compute(const AttentionBackward& call, LaunchContext& context);
void compute(const AttentionJoin& call, LaunchContext& context);
void compute(const PagedAppend& call, LaunchContext& context);
void compute(const PagedAttention& call, LaunchContext& context);
void compute(const Rope& call, LaunchContext& context);
void compute(const NormForward& call, LaunchContext& context);
void compute(const NormBackward& call, LaunchContext& context);
void compute(const ActivationForward& call, LaunchContext& context);
void compute(const ActivationBackward& call, LaunchContext& context);
void compute(const Add& call, LaunchContext& context);
void compute(const DropoutForward& call, LaunchContext& context);
void compute(const DropoutBackward& call, LaunchContext& context);
void compute(const Cast& call, LaunchContext& context);
void compute(const Scale& call, LaunchContext& context);
void compute(const EmbeddingForward& call, LaunchContext& context);
void compute(const EmbeddingBackward& call, LaunchContext& context);
void compute(const CrossEntropyForward& call, LaunchContext& context);
void compute(const CrossEntropyRescale& call, LaunchContext& context);
void compute(const CrossEntropyBackward& call, LaunchContext& context);
void compute(const AdamUpdate& call, LaunchContext& context);
void compute(const SquaredSum& call, LaunchContext& context);
void compute(const ClipFactor& call, LaunchContext& context);
void compute(const BucketCopy& call, LaunchContext& context);
void compute(const BucketReduce& call, LaunchContext& context);
void compute(const RouterForward& call, LaunchContext& context);
void compute(const RouterBackward& call, LaunchContext& context);
void compute(const MoeSort& call, LaunchContext& context);
void compute(const MoePermute& call, LaunchContext& context);
void compute(const MoeCombine& call, LaunchContext& context);
void compute(const MoeWeightGradient& call, LaunchContext& context);

}  // namespace rehearse
